Recipes for calls back to back: transfers (examples/b2bua-refer.cfg), parking (b2bua-parking.cfg), prepaid (b2bua-prepaid.cfg) and campaigns (b2bua-marketing.cfg) with a media server in the middle.
