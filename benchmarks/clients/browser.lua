-- Requests with a browser's twelve header fields, in a browser's order. Path, query and cookie differ in each request.
dofile("benchmarks/clients/wrk.lua")

local count = 0
local head = " HTTP/1.1\r\n" ..
  "Host: 127.0.0.1:8000\r\n" ..
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" ..
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" ..
  "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n" ..
  "Accept-Encoding: gzip, deflate, br, zstd\r\n" ..
  "Connection: keep-alive\r\n" ..
  "Upgrade-Insecure-Requests: 1\r\n" ..
  "Sec-Fetch-Dest: document\r\n" ..
  "Sec-Fetch-Mode: navigate\r\n" ..
  "Sec-Fetch-Site: same-origin\r\n" ..
  "Sec-Fetch-User: ?1\r\n" ..
  "Cookie: theme=dark; session="

function request()
  count = count + 1
  return "GET /articles/" .. count .. "/edit?page=" .. count % 97 .. "&q=short+stack+" .. count * 7 .. head ..
    count * 2654435761 % 4294967296 .. "-" .. count .. "\r\n\r\n"
end
