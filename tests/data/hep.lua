-- HEP (versions 1 to 3) for tshark, which has no dissector of its own for it: strict, for tests of what sipgw sends.
--
-- Each length is compared with what is there; whatever is not as it must be becomes an expert info of the group "malformed".
-- "hep.whole" stands in each frame in which nothing is wrong. The payload goes to the dissector of SIP (or JSON).
--
--   tshark -X lua_script:hep.lua -d udp.port==9060,hep -d tcp.port==9060,hep ...

local hep = Proto("hep", "Homer Encapsulation Protocol")

local f = {
  version = ProtoField.uint8("hep.version", "Version"),
  protocol = ProtoField.uint8("hep.protocol", "IP protocol"),
  source4 = ProtoField.ipv4("hep.source", "Source"),
  target4 = ProtoField.ipv4("hep.target", "Target"),
  source6 = ProtoField.ipv6("hep.source6", "Source"),
  target6 = ProtoField.ipv6("hep.target6", "Target"),
  sport = ProtoField.uint16("hep.source_port", "Source port"),
  tport = ProtoField.uint16("hep.target_port", "Target port"),
  seconds = ProtoField.uint32("hep.seconds", "Seconds"),
  micros = ProtoField.uint32("hep.microseconds", "Microseconds"),
  kind = ProtoField.uint8("hep.kind", "Kind of payload"),
  agent = ProtoField.uint32("hep.agent", "Capture agent"),
  correlation = ProtoField.string("hep.correlation", "Correlation id"),
  extra = ProtoField.string("hep.extra", "More correlations"),
  payload = ProtoField.bytes("hep.payload", "Payload"),
  whole = ProtoField.bool("hep.whole", "Nothing is wrong"),
}
hep.fields = f
local wrong = ProtoExpert.new("hep.wrong", "Malformed HEP", expert.group.MALFORMED, expert.severity.ERROR)
hep.experts = { wrong }

local sip = Dissector.get("sip")
local json = Dissector.get("json")

-- number of a chunk: field, octets (nil: any number)
local chunks = {
  [2] = { f.protocol, 1 }, [3] = { f.source4, 4 }, [4] = { f.target4, 4 }, [5] = { f.source6, 16 }, [6] = { f.target6, 16 },
  [7] = { f.sport, 2 }, [8] = { f.tport, 2 }, [9] = { f.seconds, 4 }, [10] = { f.micros, 4 }, [11] = { f.kind, 1 },
  [12] = { f.agent, 4 }, [15] = { f.payload }, [17] = { f.correlation }, [101] = { f.extra },
}

local function inside(payload, kind, pinfo, tree)
  if kind == 1 and payload(0, 1):string() ~= "{" then
    sip:call(payload:tvb(), pinfo, tree)
  elseif payload(0, 1):string() == "{" then
    json:call(payload:tvb(), pinfo, tree)
  end
end

local function third(tvb, pinfo, tree)
  local bad = function(text) tree:add_proto_expert_info(wrong, text) return false end
  if tvb:len() < 6 or tvb(0, 4):string() ~= "HEP3" then return bad("no HEP3") end
  if tvb(4, 2):uint() ~= tvb:len() then return bad("length " .. tvb(4, 2):uint() .. " of " .. tvb:len()) end
  tree:add(f.version, 3)
  local seen, at, payload = {}, 6, nil
  while at < tvb:len() do
    if at + 6 > tvb:len() then return bad("a chunk is cut off") end
    local vendor, number, size = tvb(at, 2):uint(), tvb(at + 2, 2):uint(), tvb(at + 4, 2):uint()
    if vendor ~= 0 then return bad("vendor " .. vendor) end
    if size < 6 or at + size > tvb:len() then return bad("chunk " .. number .. " has length " .. size) end
    if seen[number] then return bad("chunk " .. number .. " comes twice") end
    if number == 1 then
      if size ~= 7 then return bad("the family has length " .. size) end
      seen[1] = tvb(at + 6, 1):uint()
      if seen[1] ~= 2 and seen[1] ~= 10 then return bad("family " .. seen[1]) end
    else
      local known = chunks[number]
      if known == nil then return bad("chunk " .. number .. " is not known") end
      if known[2] and size ~= 6 + known[2] then return bad("chunk " .. number .. " has length " .. size) end
      if size > 6 then
        tree:add(known[1], tvb(at + 6, size - 6))
        if number == 15 then payload = tvb(at + 6, size - 6) end
      end
      seen[number] = size > 6 and (number == 10 or number == 11) and tvb(at + 6, size - 6):uint() or true
    end
    at = at + size
  end
  for _, number in ipairs(seen[1] == 10 and { 5, 6 } or { 3, 4 }) do
    if not seen[number] then return bad("chunk " .. number .. " is missing") end
  end
  for _, number in ipairs({ 1, 2, 7, 8, 9, 10, 11, 12 }) do
    if not seen[number] then return bad("chunk " .. number .. " is missing") end
  end
  if seen[10] > 999999 then return bad("microseconds " .. seen[10]) end
  tree:add(f.whole, true)
  if payload then inside(payload, seen[11], pinfo, tree) end
  return true
end

local function old(tvb, pinfo, tree)
  local bad = function(text) tree:add_proto_expert_info(wrong, text) return false end
  if tvb:len() < 8 then return bad("cut off") end
  local version, family = tvb(0, 1):uint(), tvb(2, 1):uint()
  local size = family == 2 and 4 or family == 10 and 16 or 0
  local head = 8 + 2 * size
  if size == 0 then return bad("family " .. family) end
  if tvb(1, 1):uint() ~= head then return bad("length " .. tvb(1, 1):uint()) end
  local start = version == 2 and head + 12 or head
  if tvb:len() < start then return bad("cut off") end
  tree:add(f.version, tvb(0, 1))
  tree:add(f.protocol, tvb(3, 1))
  tree:add(f.sport, tvb(4, 2))
  tree:add(f.tport, tvb(6, 2))
  tree:add(size == 4 and f.source4 or f.source6, tvb(8, size))
  tree:add(size == 4 and f.target4 or f.target6, tvb(8 + size, size))
  if version == 2 then
    tree:add_le(f.seconds, tvb(head, 4))
    tree:add_le(f.micros, tvb(head + 4, 4))
    tree:add_le(f.agent, tvb(head + 8, 2))
    if tvb(head + 4, 4):le_uint() > 999999 then return bad("microseconds") end
    if tvb(head + 10, 2):uint() ~= 0 then return bad("padding") end
  end
  tree:add(f.whole, true)
  if tvb:len() > start then inside(tvb(start), 1, pinfo, tree) end
  return true
end

local function one(tvb, pinfo, root)
  local tree = root:add(hep, tvb())
  local first = tvb(0, 1):uint()
  if first == 1 or first == 2 then old(tvb, pinfo, tree) else third(tvb, pinfo, tree) end
  return tvb:len()
end

function hep.dissector(tvb, pinfo, root)
  if pinfo.port_type == 2 then -- TCP: frames as their lengths say
    dissect_tcp_pdus(tvb, root, 6, function(data, _, at) return math.max(6, data(at + 4, 2):uint()) end, one)
    return tvb:len()
  end
  return one(tvb, pinfo, root)
end

DissectorTable.get("udp.port"):add_for_decode_as(hep)
DissectorTable.get("tcp.port"):add_for_decode_as(hep)
