-- Reads secrets one after the other. Arguments: the token's file, how many secrets there are.

dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "common.lua")

local prepared, at = {}, 0

function init(args)
    local headers = { ["X-Vault-Token"] = read_token(args[1]) }
    for number = 1, tonumber(args[2]) do
        prepared[number] = wrk.format("GET", "/v1/secret/data/bench/" .. number, headers)
    end
end

function request()
    at = at % #prepared + 1
    return prepared[at]
end
