-- Has tokens signed. Arguments: the token's file (not used), the path, the file of the token that asks.

dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "common.lua")

local prepared

function init(args)
    prepared = wrk.format("GET", "/v1/" .. args[2], { ["X-Vault-Token"] = read_token(args[3]) })
end

function request()
    return prepared
end
