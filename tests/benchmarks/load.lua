-- The requests of one operation, for wrk.
-- Arguments: how many rows are seeded, or a file with one id in a line; the first id that may be deleted, or with such a
-- file the first line of it; then shares: get=80 list=10 /a/path=10 ...

local PREPARED = 5000
local prepared, pattern = {}, {}
local ids
local turn, next_to_delete = 0, 0

local function student()
  return string.format('{"name": "Student Number %d", "department": "Physics", "cgpa": %.2f}',
    math.random(100000), math.random(0, 1000) / 100)
end

local function any_path()
  return "/student/" .. (ids and ids[math.random(#ids)] or math.random(prepared.seeded))
end

local function read_ids(path)
  local found = {}
  for line in io.lines(path) do table.insert(found, line) end
  return found
end

local make = {
  get = function() return wrk.format("GET", any_path()) end,
  list = function() return wrk.format("GET", "/students?limit=100") end,
  post = function() return wrk.format("POST", "/student", nil, student()) end,
  put = function() return wrk.format("PUT", any_path(), nil, student()) end,
}

function init(args)
  math.randomseed(1)
  wrk.headers["Content-Type"] = "application/json"
  prepared.seeded, next_to_delete = tonumber(args[1]), tonumber(args[2])
  if not prepared.seeded then ids = read_ids(args[1]) end
  for i = 3, #args do
    local kind, share = args[i]:match("^(.+)=(%d+)$")
    for _ = 1, tonumber(share) do
      table.insert(pattern, math.random(#pattern + 1), kind)
    end
    if kind:sub(1, 1) == "/" then
      prepared[kind] = { wrk.format("GET", kind) }
    elseif make[kind] then
      prepared[kind] = {}
      for n = 1, ids and math.max(PREPARED, #ids) or PREPARED do prepared[kind][n] = make[kind]() end
    end
  end
end

function request()
  turn = turn % #pattern + 1
  local kind = pattern[turn]
  if kind == "delete" then
    next_to_delete = next_to_delete + 1
    local id = next_to_delete - 1
    return wrk.format("DELETE", "/student/" .. (ids and ids[id] or id))
  end
  return prepared[kind][math.random(#prepared[kind])]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT {"responses": %d, "seconds": %.3f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests - errors.status, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
