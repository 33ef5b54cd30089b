// enchannel-zmq-backend as a consumer: prints "ready", then messages per second of the flood it saw.
const [config, count] = process.argv.slice(2);
const { createMainChannel } = require("enchannel-zmq-backend");

createMainChannel(JSON.parse(config)).then((channels) => {
  let seen = 0;
  let start;
  channels.subscribe((message) => {
    if (message.channel !== "iopub") return;
    if (message.header.msg_type === "iopub_welcome") console.log("ready");
    if (message.header.msg_type !== "stream") return;
    if (seen === 0) start = process.hrtime.bigint();
    seen += 1;
    if (seen === Number(count)) {
      console.log((seen - 1) / (Number(process.hrtime.bigint() - start) / 1e9));
      process.exit(0);
    }
  });
});
