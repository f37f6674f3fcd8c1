import { lstatSync, opendirSync, statSync, type BigIntStats, type Dir } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { setImmediate as breathe } from 'node:timers/promises';
import { datasetOf } from './datasets/catalog.ts';
import type { FileVersion } from './datasets/dataset.ts';
import type { IngestJob } from './queues/ingest.ts';
import { isOfSystem } from './runtime.ts';

/** Where files go with AFTER_LOAD=archive: a folder of the data folder that is never scanned. */
const ARCHIVE_FOLDER = 'archive';

/** Whether a folder, named by its path below the data folder, is looked into. */
export function isScanned(path: string): boolean {
  const parts = path.split(sep);
  return parts[0] !== ARCHIVE_FOLDER && !parts.some((part) => part.startsWith('.'));
}

/**
 * The paths, with forward slashes, of what has the name of some dataset's file in the data folder or `below`, a folder of
 * it; in no order. Folders and links of such names count, too: the processor says what is wrong with them. Synchronous,
 * as `versionNow` is, for large folders: a promise for each file would cost ten times what reading it does.
 */
export function* namesBelow(dataDir: string, below = ''): Generator<string> {
  const folder = openFolder(join(dataDir, below), below === '');
  try {
    for (let entry = folder?.readSync(); entry; entry = folder?.readSync()) {
      const path = join(below, entry.name);
      if (datasetOf(entry.name) !== undefined) yield path.split(sep).join('/');
      else if (entry.isDirectory() && isScanned(path)) yield* namesBelow(dataDir, path);
    }
  } finally {
    folder?.closeSync();
  }
}

/** A folder that may not be entered, or is gone by now, hides nothing but itself, unless it is `needed`. */
function openFolder(path: string, needed: boolean): Dir | undefined {
  try {
    return opendirSync(path, { bufferSize: 512 });
  } catch (error) {
    if (needed) throw error;
    return undefined;
  }
}

/** Names that are read in one turn. */
const NAMES_A_TURN = 500;

/**
 * The name that the ledger knows a file by, the path below the data folder where it lies, and the version that its name
 * there tells, if it does.
 */
export interface StoredFile {
  readonly name: string;
  readonly path: string;
  readonly version?: string;
}

/** The paths where a loaded version of a name may lie: the folder, and the archive, where it may carry its version. */
export function placesOf({ name, version }: FileVersion): readonly [string, string, string] {
  const archived = `${ARCHIVE_FOLDER}/${name}`;
  return [name, archived, `${archived}.${version}`];
}

/** Every file of the data folder and of the archive. */
export async function* allFiles(dataDir: string): AsyncGenerator<StoredFile> {
  let seen = 0;
  for (const name of namesBelow(dataDir)) {
    if ((seen += 1) % NAMES_A_TURN === 0) await breathe();
    yield { name, path: name };
  }
  const archive = join(dataDir, ARCHIVE_FOLDER);
  for await (const entry of (await opendir(archive, { recursive: true }).catch(() => undefined)) ?? []) {
    const path = relative(dataDir, join(entry.parentPath, entry.name)).split(sep).join('/');
    const archived = path.slice(ARCHIVE_FOLDER.length + 1);
    const [, name = archived, version] = /^(.+\.jsonl?(?:\.gz)?)\.(\d+--?\d+)$/s.exec(archived) ?? [];
    if (datasetOf(name) !== undefined) yield { name, path, ...(version !== undefined && { version }) };
  }
}

/** Bytes of a path that Linux takes. */
const MAX_PATH_BYTES = 4_095;
/** Stands in a name for bytes that are no UTF-8; under such a name nothing can be found. */
const REPLACEMENT_CHARACTER = '\uFFFD';

/** What `stat` tells; undefined for what is gone, hidden, or cannot be looked at for another reason, which hides nothing else. */
function look(stat: typeof statSync, path: string): BigIntStats | undefined {
  try {
    return stat(path, { bigint: true, throwIfNoEntry: false });
  } catch (error) {
    if (isOfSystem(error)) return undefined;
    throw error;
  }
}

/** The version of a file that lies there now, or undefined when it is gone or hidden. Links are followed where they lead. */
export function versionNow(dataDir: string, name: string): IngestJob | undefined {
  const path = join(dataDir, name);
  const found = look(statSync, path) ?? look(lstatSync, path);
  if (found !== undefined) return { name, size: Number(found.size), mtimeNs: String(found.mtimeNs) };
  // The processor says what is wrong with its name.
  const isBad = name.includes(REPLACEMENT_CHARACTER) || Buffer.byteLength(path) > MAX_PATH_BYTES;
  return isBad ? { name, size: 0, mtimeNs: '0' } : undefined;
}
