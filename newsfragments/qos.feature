qos keeps which media the phones of a call have agreed on, and dialog:list_ctx shows them.
