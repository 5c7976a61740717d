// Colour pages on a ColorFlow RT server, from Node:
//   node colorize.js HOST:PORT OUT_FOLDER REFERENCE.png PAGE.png [PAGE.png ...]
// Prints a line of JSON for each event of a page; results are OUT_FOLDER/<name of the page>.png.
const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../proto/colorflow/v1/colorflow.proto");
const definition = loader.loadSync(PROTO, { longs: Number, enums: String, oneofs: true });
const { Colorizer } = grpc.loadPackageDefinition(definition).colorflow.v1;

const [target, out, reference, ...pages] = process.argv.slice(2);
const client = new Colorizer(target, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": 256 * 1024 * 1024,
});
const picture = (file) => ({ name: path.basename(file), encoded: fs.readFileSync(file) });
const say = (line) => console.log(JSON.stringify(line));

const call = client.colorizeSequence({ deadline: Date.now() + 120_000 });
call.on("data", ({ pageId, event, accepted, retrieval, preview, result, error }) => {
  const name = path.parse(pageId).name;
  if (event === "accepted") say({ page: name, event, position: accepted.position });
  if (event === "retrieval") say({ page: name, event, references: retrieval.matches.map((match) => match.reference) });
  if (event === "preview") say({ page: name, event, step: preview.step, steps: preview.steps });
  if (event === "error") say({ page: name, event, code: error.code, message: error.message });
  if (event === "result") {
    fs.writeFileSync(path.join(out, `${name}.png`), result.image.encoded);
    say({ page: name, event, style: result.style });
  }
});
call.on("error", (error) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});
call.on("end", () => client.close());

call.write({ start: { options: { steps: 4, previewEvery: 2, style: "STYLE_GRAY" } } });
call.write({ reference: picture(reference) });
for (const page of pages) call.write({ page: { id: path.basename(page), image: picture(page) } });
call.end();
