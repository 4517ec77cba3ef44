Reliable provisional responses pass through b2b_logic on each side for itself, with passthru_prack from end to end; UPDATE passes before and after the answer.
