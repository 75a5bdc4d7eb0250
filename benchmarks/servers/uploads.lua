-- Swallows uploads: reads the body whole, waits, and answers as S3 does to PutObject, CreateMultipartUpload, UploadPart,
-- CompleteMultipartUpload and AbortMultipartUpload.
local XML = '<?xml version="1.0" encoding="UTF-8"?>\n<%s xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
  .. '<Bucket>%s</Bucket><Key>%s</Key>%s</%s>'
local ETAG = '"d41d8cd98f00b204e9800998ecf8427e-%d"'

local function document(name, more)
  local bucket, key = ngx.var.uri:match("^/([^/]*)/?(.*)")
  local body = XML:format(name, bucket, key, more, name)
  ngx.header["Content-Type"] = "application/xml"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

local function answer(delay)
  ngx.req.read_body()
  ngx.sleep(delay)
  local query, method = ngx.req.get_uri_args(), ngx.req.get_method()
  if method == "POST" and query.uploads then
    document("InitiateMultipartUploadResult", "<UploadId>upload-" .. ngx.now() .. "</UploadId>")
  elseif method == "POST" and query.uploadId then
    document("CompleteMultipartUploadResult", "<ETag>" .. ETAG:format(1):gsub('"', "&quot;") .. "</ETag>")
  elseif method == "PUT" then
    ngx.header["ETag"] = ETAG:format(tonumber(query.partNumber or 0))
    ngx.header["Content-Length"] = 0
    ngx.exit(200)
  elseif method == "DELETE" then
    ngx.exit(204)
  else
    ngx.exit(404)
  end
end

return { answer = answer }
