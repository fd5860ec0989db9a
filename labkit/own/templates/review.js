"use strict";
// What operations make of the clusters of the page. No DOM here; the rules are those of labkit/own/review.py.

const REJECTED = -1;
const LONGEST_NAME = 100;

/** A name as a review may hold it: one line, no control characters. */
function cleanName(text) {
  return Array.from(text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]+/gu, " ").trim()).slice(0, LONGEST_NAME).join("").trim();
}

/** Whether something (out of the browser's storage, say) has the form of an operation. */
function isOperation(given) {
  if (typeof given !== "object" || given === null) return false;
  const isNumber = (value) => Number.isInteger(value) && value >= 0;
  const isList = (value, test) => Array.isArray(value) && value.length > 0 && value.every(test);
  const isFiles = (value) => isList(value, (file) => typeof file === "string");
  switch (given.do) {
    case "merge": return isList(given.clusters, isNumber) && given.clusters.length > 1;
    case "split": return isNumber(given.cluster) && isNumber(given.into) && given.into > 1;
    case "rename": return isNumber(given.cluster) && typeof given.name === "string";
    case "reject": return isNumber(given.cluster) !== isFiles(given.files);
    case "move": return isNumber(given.cluster) && isFiles(given.files);
    default: return false;
  }
}

/**
 * The clusters after operations.
 *
 * base.clusters: {cluster, size, name, nameConfidence, suggestions}; base.images: {file, cluster}.
 * Returns {clusters: Map from number to {number, size, name, nameConfidence, suggestions, parts, split, given},
 * clusterOf: the cluster of each image, rejected: how many images}.
 */
function derive(base, operations) {
  const clusters = new Map();
  for (const found of base.clusters) {
    clusters.set(found.cluster, { ...found, number: found.cluster, parts: [found.cluster], split: 0, given: false });
  }
  const state = { clusters, clusterOf: base.images.map((image) => image.cluster), rejected: base.rejected };
  const rows = new Map();
  base.images.forEach((image, i) => rows.set(image.file, [...(rows.get(image.file) || []), i]));
  for (const operation of operations) apply(state, operation, rows);
  return state;
}

function apply(state, operation, rows) {
  const { clusters, clusterOf } = state;
  const put = (files, target) => {
    for (const i of files.flatMap((file) => rows.get(file) || [])) {
      const from = clusterOf[i];
      if (from === target) continue;
      if (from === REJECTED) state.rejected -= 1; else clusters.get(from).size -= 1;
      if (target === REJECTED) state.rejected += 1; else clusters.get(target).size += 1;
      clusterOf[i] = target;
    }
  };
  if (operation.do === "merge") {
    const [kept, ...others] = [...new Set(operation.clusters)].sort((a, b) => a - b).map((n) => clusters.get(n));
    for (const other of others) {
      kept.size += other.size;
      kept.name = kept.name || other.name;
      kept.given = kept.given || other.given;
      kept.suggestions = [...new Set([...kept.suggestions, ...other.suggestions])];
      kept.parts = [...kept.parts, ...other.parts];
      clusters.delete(other.number);
      clusterOf.forEach((cluster, i) => { if (cluster === other.number) clusterOf[i] = kept.number; });
    }
    kept.nameConfidence = null;
  } else if (operation.do === "split") {
    clusters.get(operation.cluster).split = operation.into;
  } else if (operation.do === "rename") {
    Object.assign(clusters.get(operation.cluster), { name: operation.name, nameConfidence: null, given: true });
  } else if (operation.do === "move") {
    put(operation.files, operation.cluster);
  } else if (operation.files) {
    put(operation.files, REJECTED);
  } else {
    state.rejected += clusters.get(operation.cluster).size;
    clusters.delete(operation.cluster);
    clusterOf.forEach((cluster, i) => { if (cluster === operation.cluster) clusterOf[i] = REJECTED; });
  }
}

/** Why an operation cannot be done now, as a sentence; "" where it can. */
function problem(state, operation) {
  if (!isOperation(operation)) return "This is no operation.";
  for (const number of operation.clusters || (operation.cluster === undefined ? [] : [operation.cluster])) {
    const cluster = state.clusters.get(number);
    if (!cluster) return `There is no cluster ${number} any more.`;
    const isWhole = operation.do === "merge" || operation.do === "split" || operation.do === "reject";
    if (cluster.split && isWhole) return `Cluster ${number} will be split: apply the review first, or undo.`;
  }
  if (operation.do === "reject" && !operation.files && state.clusters.size === 1) return "This is the last cluster: a review keeps at least one.";
  if (operation.do === "merge" && new Set(operation.clusters).size < 2) return "A merge needs two clusters.";
  if (operation.do === "split" && state.clusters.get(operation.cluster).size < operation.into) {
    return `Cluster ${operation.cluster} has too few images for that.`;
  }
  return "";
}

/** An operation in words. */
function inWords(operation) {
  const count = (files) => (files.length === 1 ? "1 image" : `${files.length} images`);
  switch (operation.do) {
    case "merge": return `Merge clusters ${operation.clusters.slice(0, -1).join(", ")} and ${operation.clusters.at(-1)}`;
    case "split": return `Split cluster ${operation.cluster} into ${operation.into}`;
    case "rename": return operation.name
      ? `Name cluster ${operation.cluster} “${operation.name}”` : `Take the name of cluster ${operation.cluster} away`;
    case "move": return `Move ${count(operation.files)} to cluster ${operation.cluster}`;
    default: return operation.files ? `Reject ${count(operation.files)}` : `Reject cluster ${operation.cluster}`;
  }
}
