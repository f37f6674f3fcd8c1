import { lstatSync, opendirSync, statSync, type Dir } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';
import { setImmediate as breathe } from 'node:timers/promises';
import { datasetOf } from './datasets/catalog.ts';
import type { FileVersion } from './datasets/dataset.ts';
import { versionOf, type IngestJob } from './queues/ingest.ts';
import { codeOf, isOfSystem } from './runtime.ts';

/** Where files go with AFTER_LOAD=archive: a folder of the data folder that is never scanned. */
const ARCHIVE_FOLDER = 'archive';
/** A folder of some file systems' own, at their top. */
const LOST_AND_FOUND = 'lost+found';

/** Whether a folder, named by its path below the data folder, is looked into. */
export function isScanned(path: string): boolean {
  const parts = path.split(sep);
  return ![ARCHIVE_FOLDER, LOST_AND_FOUND].includes(parts[0] ?? '') && !parts.some((part) => part.startsWith('.'));
}

/** Whether a folder is looked into for files, and is not taken for one itself. */
export const isLookedInto = (path: string) => isScanned(path) && datasetOf(basename(path)) === undefined;

/** To be told of a folder that cannot be read, and why; what is gone by now is no such folder. */
export type OnUnread = (folder: string, error: unknown) => void;

/**
 * The paths of all that lies in the data folder or `below`, a folder of it, in no order, but for folders that are `isEntered`.
 * For each folder that is begun, undefined comes, so that who goes through many empty ones can let others have a turn.
 * Synchronous, as `versionNow` is, for large folders: a promise for each file would cost ten times what reading it does. By
 * hand, as Node 20 lists but 32 entries of each folder below the first one (nodejs/node#48820).
 */
export function* pathsBelow(
  dataDir: string,
  below = '',
  isEntered = (_path: string) => true,
  onUnread: OnUnread = () => undefined,
): Generator<string | undefined> {
  const folder = openFolder(dataDir, below, onUnread);
  try {
    yield undefined;
    for (let entry = folder?.readSync(); entry; entry = folder?.readSync()) {
      const path = join(below, entry.name);
      if (entry.isDirectory() && isEntered(path)) yield* pathsBelow(dataDir, path, isEntered, onUnread);
      else yield path;
    }
  } finally {
    folder?.closeSync();
  }
}

/** A folder that cannot be read hides nothing but itself, unless it is the data folder. */
function openFolder(dataDir: string, below: string, onUnread: OnUnread): Dir | undefined {
  try {
    return opendirSync(join(dataDir, below), { bufferSize: 512 });
  } catch (error) {
    if (below === '') throw error;
    if (codeOf(error) !== 'ENOENT') onUnread(below, error);
    return undefined;
  }
}

function* namesBelow(dataDir: string, below = '', onUnread?: OnUnread): Generator<string | undefined> {
  for (const path of pathsBelow(dataDir, below, isLookedInto, onUnread))
    if (path === undefined) yield undefined;
    else if (datasetOf(basename(path)) !== undefined) yield path.split(sep).join('/');
}

/** Names and folders that are read in one turn. */
const ONES_A_TURN = 500;

/** Pages of what is found, each read in one turn. */
async function* inTurns<T>(found: Iterable<T | undefined>): AsyncGenerator<T[]> {
  let page: T[] = [];
  let seen = 0;
  for (const one of found) {
    if (one !== undefined) page.push(one);
    if ((seen += 1) % ONES_A_TURN !== 0) continue;
    yield page;
    page = [];
    await breathe();
  }
  yield page;
}

/**
 * The paths, with forward slashes, of what has the name of some dataset's file in the data folder or `below`, a folder of
 * it, in pages. Folders and links of such names count, too: the processor says what is wrong with them.
 */
export const namePages = (dataDir: string, below?: string, onUnread?: OnUnread) =>
  inTurns(namesBelow(dataDir, below, onUnread));

/**
 * The name that the ledger knows a file by, the path below the data folder where it lies, and the version that its name
 * there tells, if it does.
 */
export interface StoredFile {
  readonly name: string;
  readonly path: string;
  readonly version?: string;
}

/** Bytes of the longest name that file systems take. */
const MAX_NAME_BYTES = 255;

/**
 * The paths where a loaded version of a name may lie: the folder, and the archive, where it may carry its version behind its
 * name, or as a folder where that is too long.
 */
export function placesOf({ name, version }: FileVersion): readonly [string, string, string] {
  const archived = `${ARCHIVE_FOLDER}/${name}`;
  const [folder, base] = [dirname(archived), `${basename(name)}.${version}`];
  const isLong = Buffer.byteLength(base) > MAX_NAME_BYTES;
  return [name, archived, isLong ? `${folder}/.${version}/${basename(name)}` : `${folder}/${base}`];
}

/** The name that a path below the archive was archived under, and the version that it carries, if it does. */
function archivedAs(path: string): { readonly name: string; readonly version?: string | undefined } {
  const [, folder = '', ofFolder, base = ''] = /^((?:.*\/)?)\.(\d+--?\d+)\/([^/]+)$/s.exec(path) ?? [];
  if (ofFolder !== undefined) return { name: `${folder}${base}`, version: ofFolder };
  const [, name = path, version] = /^(.+\.jsonl?(?:\.gz)?)\.(\d+--?\d+)$/s.exec(path) ?? [];
  return { name, version };
}

function* storedFiles(dataDir: string, onUnread?: OnUnread): Generator<StoredFile | undefined> {
  for (const name of namesBelow(dataDir, '', onUnread)) yield name === undefined ? undefined : { name, path: name };
  const isFilled = (path: string) => basename(path) !== LOST_AND_FOUND;
  for (const found of pathsBelow(dataDir, ARCHIVE_FOLDER, isFilled, onUnread)) {
    if (found === undefined) {
      yield undefined;
      continue;
    }
    const path = found.split(sep).join('/');
    const { name, version } = archivedAs(path.slice(ARCHIVE_FOLDER.length + 1));
    if (datasetOf(name) !== undefined) yield { name, path, ...(version !== undefined && { version }) };
  }
}

/** Every file of the data folder and of the archive. */
export async function* allFiles(dataDir: string, onUnread?: OnUnread): AsyncGenerator<StoredFile> {
  for await (const page of inTurns(storedFiles(dataDir, onUnread))) yield* page;
}

/** How many files there are, as far as it is worth to go on. */
export async function countFiles(dataDir: string, goesOn = () => true): Promise<number> {
  let count = 0;
  for await (const page of inTurns(storedFiles(dataDir))) {
    if (!goesOn()) break;
    count += page.length;
  }
  return count;
}

/** Stands in a name for bytes that are no UTF-8; under such a name nothing can be found. */
const REPLACEMENT_CHARACTER = '\uFFFD';

const OPTIONS = { bigint: true, throwIfNoEntry: false } as const;
/** What a link leads to, or the link where it leads nowhere. @throws what the system says where it lets nobody look */
export function look(path: string) {
  try {
    const found = statSync(path, OPTIONS);
    if (found !== undefined) return found;
  } catch (error) {
    if (!isOfSystem(error)) throw error;
  }
  return lstatSync(path, OPTIONS);
}

/** What has no version that can be told stands in the ledger as this one. */
const UNTOLD = { size: 0, mtimeNs: '0' };
export const UNTOLD_VERSION = versionOf(UNTOLD);
/** Why the system lets nobody look, where that is final: the rights, or the length of the path. */
const REFUSALS = ['EACCES', 'EPERM', 'ENAMETOOLONG'];

/**
 * The version of a file that lies there now, or undefined when it is gone, or cannot be looked at for a reason that may go
 * by itself. Where that is final, the version is none that can be told: the processor says what is wrong.
 */
export function versionNow(dataDir: string, name: string): IngestJob | undefined {
  try {
    const found = look(join(dataDir, name));
    // A sparse file may be larger than a number can say; it is far larger than any that is loaded.
    const size = Math.min(Number(found?.size), Number.MAX_SAFE_INTEGER);
    if (found !== undefined) return { name, size, mtimeNs: String(found.mtimeNs) };
    if (!name.includes(REPLACEMENT_CHARACTER)) return undefined;
  } catch (error) {
    if (!isOfSystem(error)) throw error;
    if (!REFUSALS.includes(codeOf(error))) return undefined;
  }
  return { name, ...UNTOLD };
}

/** Whether that very version of a file lies in the folder now. */
export function isInFolder(dataDir: string, { name, version }: FileVersion): boolean {
  const there = versionNow(dataDir, name);
  return there !== undefined && versionOf(there) === version;
}
