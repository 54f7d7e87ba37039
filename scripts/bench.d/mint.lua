-- Asks for database logins. Arguments: the token's file, the role.

dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "common.lua")

local prepared

function init(args)
    local headers = { ["X-Vault-Token"] = read_token(args[1]) }
    prepared = wrk.format("GET", "/v1/db/creds/" .. args[2], headers)
end

function request()
    return prepared
end
