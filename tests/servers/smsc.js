// An SMSC of the npm package smpp: takes texts, says what it took, sends receipts, and answers some texts with others.
const smpp = require(process.argv[2]);
let id = 0;
const server = smpp.createServer({}, session => {
  session.on('bind_transceiver', pdu => {
    if (pdu.password !== 'pw') { session.send(pdu.response({command_status: smpp.ESME_RBINDFAIL})); return session.close(); }
    session.send(pdu.response({system_id: 'node'}));
  });
  session.on('enquire_link', pdu => session.send(pdu.response()));
  session.on('unbind', pdu => { session.send(pdu.response()); session.close(); });
  session.on('submit_sm', pdu => {
    const name = String(++id);
    session.send(pdu.response({message_id: name}));
    const text = pdu.short_message.message === undefined ? '' : pdu.short_message.message;
    const udh = pdu.short_message.udh ? Buffer.concat([].concat(pdu.short_message.udh)).toString('hex') : '';
    console.log(JSON.stringify({from: pdu.source_addr, to: pdu.destination_addr, coding: pdu.data_coding, udh: udh, text: text}));
    const back = {source_addr: pdu.destination_addr, source_addr_ton: 1, destination_addr: pdu.source_addr, dest_addr_ton: 1};
    if (pdu.registered_delivery)
      session.deliver_sm({...back, esm_class: 4, receipted_message_id: name, message_state: 2,
        short_message: `id:${name} sub:001 dlvrd:001 submit date:2611221500 done date:2611221501 stat:DELIVRD err:000 text:x`});
    if (text === 'gsm') session.deliver_sm({...back, data_coding: 0, short_message: 'Grüße €[]'});
    if (text === 'ucs') session.deliver_sm({...back, data_coding: 8, short_message: 'Привет 🙂'});
    if (text === 'payload') session.deliver_sm({...back, short_message: '', message_payload: 'long '.repeat(80)});
  });
  session.on('error', () => {});
});
server.listen(+process.argv[3], '127.0.0.1');
