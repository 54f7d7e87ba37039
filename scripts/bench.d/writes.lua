-- Writes secrets, each under a name of its own. Arguments: the token's file, the run's prefix, the value.

dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "common.lua")

local headers, body, prefix, at = {}, "", "", 0

function init(args)
    headers["X-Vault-Token"] = read_token(args[1])
    headers["Content-Type"] = "application/json"
    prefix = "/v1/secret/data/" .. args[2] .. "/"
    body = '{"data":{"value":"' .. args[3] .. '"}}'
end

function request()
    at = at + 1
    return wrk.format("PUT", prefix .. at, headers, body)
end
