import { basename } from 'node:path';
import type { Dataset } from './dataset.ts';
import { vehicleEvents } from './vehicle-events.ts';
import { vehicleStatus } from './vehicle-status.ts';

const datasets: readonly Dataset[] = [vehicleEvents, vehicleStatus];

/** How a file's records are laid out, told by its extension. */
export interface FileFormat {
  readonly lines: boolean;
  readonly gzip: boolean;
}

/** The kind of a file by its name; undefined for one that is hidden, temporary, or of no known prefix and extension. */
export function datasetOf(path: string): { readonly dataset: Dataset; readonly format: FileFormat } | undefined {
  const name = basename(path);
  const extension = /^[^.].*\.(json|jsonl)(\.gz)?$/s.exec(name);
  const dataset = datasets.find(({ prefix }) => name.startsWith(prefix));
  if (dataset === undefined || extension === null) return undefined;
  return { dataset, format: { lines: extension[1] === 'jsonl', gzip: extension[2] !== undefined } };
}
