b2b_bridge, b2b_delete_entity and the command b2b_logic:bridge join one side of an answered call with somebody else (transfers by REFER, callers that go on when the callee hangs up).
