// Submits a job, follows it, pauses it in the middle, resumes it, and downloads what it has learned. Prints what it saw, as JSON.
// node client.js ADDRESS PROTOS, where PROTOS is the folder that the import path "shardsgd/protos" stands for.
const crypto = require("crypto");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos] = process.argv.slice(2);
const options = { keepCase: true, longs: Number, enums: String, defaults: false, oneofs: true };
const { TrainingService } = grpc.loadPackageDefinition(loader.loadSync(`${protos}/training.proto`, options)).shardsgd.v1;
const client = new TrainingService(address, grpc.credentials.createInsecure());
const deadline = () => ({ deadline: Date.now() + 60000 });

function call(name, request) {
  return new Promise((resolve, reject) =>
    client[name](request, deadline(), (error, response) => (error ? reject(error) : resolve(response))),
  );
}

// Every event after a number, until `enough` says so or the stream ends.
function watch(jobId, after, enough) {
  return new Promise((resolve, reject) => {
    const seen = [];
    const stream = client.WatchJob({ job_id: jobId, after_sequence: after }, deadline());
    stream.on("data", (event) => {
      if (enough === null) return;
      seen.push(event);
      if (enough(event)) {
        enough = null;
        stream.cancel();
        resolve(seen);
      }
    });
    stream.on("end", () => resolve(seen));
    stream.on("error", (error) => (enough === null ? null : reject(error)));
  });
}

function download(jobId) {
  return new Promise((resolve, reject) => {
    let header = null;
    const chunks = [];
    const stream = client.DownloadParameters({ job_id: jobId }, deadline());
    stream.on("data", (message) => (message.part === "header" ? (header = message.header) : chunks.push(message.chunk)));
    stream.on("end", () => resolve({ header, bytes: Buffer.concat(chunks) }));
    stream.on("error", reject);
  });
}

const became = (state) => (event) => event.event === "state_change" && event.state_change.state === state;

async function main() {
  const spec = {
    name: "node",
    data: { source: "digits" },
    model: { hidden: { items: [16] } },
    workers: { count: 1 },
    batch: { size: 128 },
    stop: { steps: 3000 },
  };
  const { job } = await call("CreateJob", { spec, request_id: crypto.randomUUID() });
  let seen = await watch(job.job_id, 0, (event) => event.event === "metrics");
  const paused = await call("PauseJob", { job_id: job.job_id });
  seen = seen.concat(await watch(job.job_id, seen.at(-1).sequence, became("JOB_STATE_PAUSED")));
  await call("ResumeJob", { job_id: job.job_id });
  seen = seen.concat(await watch(job.job_id, seen.at(-1).sequence, () => false));
  const { job: last } = await call("GetJob", { job_id: job.job_id });
  const { header, bytes } = await download(job.job_id);
  const wrong = await call("CreateJob", { spec: { ...spec, batch: { size: 0 } } }).catch((error) => error);
  console.log(
    JSON.stringify({
      job_id: job.job_id,
      intent: paused.job.intent,
      sequences: seen.map((event) => event.sequence),
      states: seen.filter((event) => event.event === "state_change").map((event) => event.state_change.state),
      state: last.state,
      parameters_sha256: header.parameters_sha256,
      sha256: header.sha256,
      downloaded: crypto.createHash("sha256").update(bytes).digest("hex"),
      wrong: { code: wrong.code, details: wrong.metadata.get("grpc-status-details-bin").length },
    }),
  );
  client.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
