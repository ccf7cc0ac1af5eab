// The binary frames of V2.

/** A client's push. */
export function push(joinRef, ref, topic, event, data) {
  const names = [joinRef, ref, topic, event].map((name) => Buffer.from(name));
  return Buffer.concat([Buffer.from([0, ...names.map((name) => name.length)]), ...names, Buffer.from(data)]);
}

const KINDS = [
  ["push", "joinRef", "topic", "event"],
  ["reply", "joinRef", "ref", "topic", "status"],
  ["broadcast", "topic", "event"],
];

/** A node's frame taken apart: `{kind, …names, data}`. */
export function read(frame) {
  const [kind, ...names] = KINDS[frame[0]];
  const parts = { kind };
  let at = 1 + names.length;
  names.forEach((name, i) => {
    parts[name] = frame.subarray(at, at + frame[1 + i]).toString();
    at += frame[1 + i];
  });
  return { ...parts, data: [...frame.subarray(at)] };
}
