registrar gives out GRUUs (RFC 5627) with disable_gruu=0: lookup() and is_registered() follow public and temporary ones to the one device.
