import { basename } from 'node:path';
import type { Dataset } from './dataset.ts';
import { vehicleEvents } from './vehicle-events.ts';
import { vehicleStatus } from './vehicle-status.ts';

const datasets: readonly Dataset[] = [vehicleEvents, vehicleStatus];

/** What the name of a file tells: whose records it holds, and how they are laid out. */
export type FileKind = NonNullable<ReturnType<typeof datasetOf>>;

/** The kind of a file by its name; undefined for one that is hidden, temporary, or of no known prefix and extension. */
export function datasetOf(path: string) {
  const name = basename(path);
  const extension = /^[^.].*\.(json|jsonl)(\.gz)?$/s.exec(name);
  const dataset = datasets.find(({ prefix }) => name.startsWith(prefix));
  if (dataset === undefined || extension === null) return undefined;
  return { dataset, format: { lines: extension[1] === 'jsonl', gzip: extension[2] !== undefined } };
}
