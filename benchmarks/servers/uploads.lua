-- Swallows uploads: reads the body whole, waits, and answers as S3 does to PutObject, CreateMultipartUpload, UploadPart,
-- CompleteMultipartUpload and AbortMultipartUpload. Objects of one small part are kept, for GetObject, HeadObject,
-- CopyObject and DeleteObject: a distributed checkpoint commits with one that is read or copied again. Of all objects the
-- size is kept, for ListObjectsV2 in one page: a checkpoint manager looks at what is there before it commits.
local XML = '<?xml version="1.0" encoding="UTF-8"?>\n<%s xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
  .. '<Bucket>%s</Bucket><Key>%s</Key>%s</%s>'
local ETAG = '"d41d8cd98f00b204e9800998ecf8427e-%d"'
local NO_SUCH_KEY = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
  .. '<Message>There is no such object, or it was not small.</Message></Error>'
local SMALL = 1024 * 1024
local DATE = "<LastModified>2024-02-29T12:00:00.000Z</LastModified>"

local function document(name, more)
  local bucket, key = ngx.var.uri:match("^/([^/]*)/?(.*)")
  local body = XML:format(name, bucket, key, more, name)
  ngx.header["Content-Type"] = "application/xml"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

local function missing()
  ngx.status = 404
  ngx.header["Content-Type"] = "application/xml"
  if ngx.req.get_method() ~= "HEAD" then ngx.print(NO_SUCH_KEY) end
end

local function etag_element(number)
  return "<ETag>" .. ETAG:format(number):gsub('"', "&quot;") .. "</ETag>"
end

local function keep(name)
  local body = ngx.req.get_body_data()
  if body and #body <= SMALL then ngx.shared.small_objects:set(name, body) end
end

local function size_of(uri) return "=" .. uri end  -- names of sizes, among those of objects, which begin with a slash

local function note_size(query)
  local sizes, sent = ngx.shared.small_objects, tonumber(ngx.var.http_content_length or 0)
  if query.uploadId then sizes:incr(size_of(ngx.var.uri .. "?" .. query.uploadId), sent, 0)
  else sizes:set(size_of(ngx.var.uri), sent) end
end

local function list(query)
  local bucket = ngx.var.uri:match("^/[^/]*") .. "/"
  local start, entries = size_of(bucket .. (query.prefix or "")), {}
  for _, name in ipairs(ngx.shared.small_objects:get_keys(0)) do
    if name:sub(1, #start) == start then
      entries[#entries + 1] = ("<Contents><Key>%s</Key>%s%s<Size>%d</Size></Contents>"):format(
        name:sub(#size_of(bucket) + 1), DATE, etag_element(0), ngx.shared.small_objects:get(name))
    end
  end
  table.sort(entries)
  document("ListBucketResult", "<IsTruncated>false</IsTruncated>" .. table.concat(entries))
end

local function put(query)
  local source = ngx.req.get_headers()["x-amz-copy-source"]
  if source then
    local object = ngx.shared.small_objects:get("/" .. ngx.unescape_uri(source):gsub("^/", ""))
    if not object then return missing() end
    ngx.shared.small_objects:set(ngx.var.uri, object)
    return document("CopyObjectResult", DATE .. etag_element(0))
  end
  note_size(query)
  if query.partNumber == nil then
    keep(ngx.var.uri)
  elseif query.partNumber == "1" then
    keep(ngx.var.uri .. "?" .. query.uploadId)
  end
  ngx.header["ETag"] = ETAG:format(tonumber(query.partNumber or 0))
  ngx.header["Content-Length"] = 0
  ngx.exit(200)
end

local function complete(query)
  local part = ngx.var.uri .. "?" .. query.uploadId
  local object, size = ngx.shared.small_objects:get(part), ngx.shared.small_objects:get(size_of(part))
  ngx.shared.small_objects:delete(size_of(part))
  ngx.shared.small_objects:set(size_of(ngx.var.uri), size)
  if object then
    ngx.shared.small_objects:delete(part)
    ngx.shared.small_objects:set(ngx.var.uri, object)
  end
  document("CompleteMultipartUploadResult", etag_element(0))
end

local function get()
  local object = ngx.shared.small_objects:get(ngx.var.uri)
  if not object then return missing() end
  local first, last = (ngx.var.http_range or ""):match("^bytes=(%d*)-(%d*)$")
  if first then
    local from, to = tonumber(first), tonumber(last)
    if not from then from, to = math.max(0, #object - to), nil end
    to = math.min(to or #object, #object - 1)
    ngx.status = 206
    ngx.header["Content-Range"] = ("bytes %d-%d/%d"):format(from, to, #object)
    object = object:sub(from + 1, to + 1)
  end
  ngx.header["ETag"] = ETAG:format(0)
  ngx.header["Last-Modified"] = "Thu, 29 Feb 2024 12:00:00 GMT"
  ngx.header["Content-Length"] = #object
  if ngx.req.get_method() == "GET" then ngx.print(object) end
end

local function answer(delay)
  ngx.req.read_body()
  ngx.sleep(delay)
  local query, method = ngx.req.get_uri_args(), ngx.req.get_method()
  if method == "POST" and query.uploads then
    document("InitiateMultipartUploadResult", "<UploadId>upload-" .. ngx.now() .. "</UploadId>")
  elseif method == "POST" and query.uploadId then
    complete(query)
  elseif method == "PUT" then
    put(query)
  elseif method == "DELETE" then
    ngx.shared.small_objects:delete(ngx.var.uri)
    ngx.shared.small_objects:delete(size_of(ngx.var.uri))
    ngx.exit(204)
  elseif method == "GET" and query["list-type"] then
    list(query)
  elseif method == "GET" or method == "HEAD" then
    get()
  else
    ngx.exit(404)
  end
end

return { answer = answer }
