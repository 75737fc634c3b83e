// Jobs for the worker: each is a promise of its result. One runs at a time, in the order in which they were asked for.
const waiting = new Map();
let worker, next = 0, last = Promise.resolve();

export class JobError extends Error {}

export function start() {
  worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "camo" });
  worker.onmessage = ({ data: { id, progress, result, fault } }) => {
    const job = waiting.get(id);
    if (progress !== undefined) job.onProgress(progress);
    else {
      waiting.delete(id);
      if (fault === undefined) job.resolve(result);
      else job.reject(new JobError(fault));
    }
  };
  worker.onerror = (event) => {
    for (const job of waiting.values()) job.reject(new JobError(event.message || "the worker stopped"));
    waiting.clear();
  };
}

// A job; cancel(id) ends it, onStart(id) is told its id.
export function run(kind, parameters, { onProgress = () => {}, onStart = () => {} } = {}) {
  const job = () =>
    new Promise((resolve, reject) => {
      next += 1;
      waiting.set(next, { resolve, reject, onProgress });
      onStart(next);
      worker.postMessage({ id: next, kind, ...parameters });
    });
  const done = last.then(job);
  last = done.catch(() => {});
  return done;
}

export const cancel = (id) => worker.postMessage({ kind: "cancel", job: id });
