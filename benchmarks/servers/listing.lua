-- ListObjectsV2 over 100,000 keys laid out as an image dataset (1,000 classes of 100 images). The entries are written
-- once, before nginx forks, so that a page is one table.concat and the server is never what is measured.
local CLASSES, IMAGES = 1000, 100
local ENTRY = '<Contents><Key>%s</Key><LastModified>2024-02-29T12:00:00.000Z</LastModified>'
  .. '<ETag>&quot;%032x&quot;</ETag><Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>'
local HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
  .. '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
  .. '<Name>%s</Name><Prefix>%s</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%s</IsTruncated>'

local keys, entries = {}, {}
local class = 1440764
for c = 1, CLASSES do
  class = class + 1 + (c * 7919) % 25013
  for i = 1, IMAGES do
    local n = #keys + 1
    keys[n] = string.format("train/n%08d/n%08d_%05d.JPEG", class, class, i * 131)
    entries[n] = string.format(ENTRY, keys[n], n, 60000 + (n * 7919) % 100003)
  end
end

local function first_after(text) -- index of the first key greater than text; keys are sorted bytewise
  local low, high = 1, #keys + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if keys[middle] > text then high = middle else low = middle + 1 end
  end
  return low
end

local function first_at(text) -- index of the first key not less than text
  local n = first_after(text)
  if n > 1 and keys[n - 1] == text then return n - 1 end
  return n
end

local function answer(delay)
  local query = ngx.req.get_uri_args()
  local prefix = query.prefix
  if type(prefix) ~= "string" then prefix = "" end
  if query.delimiter and query.delimiter ~= "" and query.delimiter ~= true then return ngx.exit(501) end
  local first, after = first_at(prefix), query["start-after"]
  if query["continuation-token"] then
    first = tonumber(query["continuation-token"]:sub(2))
  elseif type(after) == "string" and after ~= "" then
    first = math.max(first, first_after(after))
  end
  local past = prefix == "" and #keys + 1 or first_at(prefix .. "\255")
  local max_keys = math.min(tonumber(query["max-keys"] or 1000), 1000)
  local last = math.min(first + max_keys, past) - 1
  local more = last + 1 < past
  local bucket = ngx.var.uri:match("^/([^/]*)")
  local page = {
    HEAD:format(bucket, prefix, math.max(last - first + 1, 0), max_keys, more and "true" or "false"),
    last >= first and table.concat(entries, "", first, last) or "",
    more and ("<NextContinuationToken>t" .. (last + 1) .. "</NextContinuationToken>") or "",
    "</ListBucketResult>",
  }
  ngx.sleep(delay)
  ngx.header["Content-Type"] = "application/xml"
  ngx.header["Content-Length"] = #page[1] + #page[2] + #page[3] + #page[4]
  ngx.print(page)
end

return { answer = answer }
