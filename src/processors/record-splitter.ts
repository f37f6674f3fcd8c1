import { isUtf8 } from 'node:buffer';
import { FileProblem } from './data-file.ts';

/** One record of a file as it was sent, or why its text cannot be had. `index` counts from 0. */
export interface RawRecord {
  readonly index: number;
  readonly text: string;
  readonly problem?: string;
}

/** Cuts a stream of bytes into records. Memory: the bytes of one record. */
export interface RecordSplitter {
  /** Takes the next bytes and returns the records that they end. @throws FileProblem when this is no such file */
  push(bytes: Buffer): RawRecord[];
  /** Takes the end of the file and returns a last record. @throws FileProblem when the file ends too early */
  end(): RawRecord[];
}

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** Bytes of an oversized record that are kept, to show what it was. */
const KEPT_OF_OVERSIZED = 4_096;

function isBlank(byte: number | undefined): boolean {
  return byte === SPACE || byte === LINE_FEED || byte === CARRIAGE_RETURN || byte === TAB;
}

/** Collects the bytes of one record across chunks, and gives up on one that grows too large. */
function createCollector(maxRecordBytes: number) {
  let parts: Buffer[] = [];
  let length = 0;
  let index = 0;
  return {
    index: () => index,
    isEmpty: () => length === 0,
    add: (bytes: Buffer) => {
      if (length <= maxRecordBytes) parts.push(bytes);
      length += bytes.length;
    },
    take: (): RawRecord => {
      const bytes = parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
      const size = length;
      parts = [];
      length = 0;
      const at = index;
      index += 1;
      if (size > maxRecordBytes) {
        const text = bytes.subarray(0, KEPT_OF_OVERSIZED).toString('latin1');
        return { index: at, text, problem: `larger than MAX_RECORD_BYTES: ${size} of at most ${maxRecordBytes} bytes` };
      }
      if (!isUtf8(bytes)) return { index: at, text: bytes.toString('latin1'), problem: 'not UTF-8 text' };
      return { index: at, text: bytes.toString('utf8') };
    },
  };
}

/** Drops a leading byte order mark, also one that is cut by a chunk's end. */
function createMarkRemover() {
  let held: Buffer | undefined = Buffer.alloc(0);
  return (bytes: Buffer): Buffer => {
    if (held === undefined) return bytes;
    const all = Buffer.concat([held, bytes]);
    if (all.length < BYTE_ORDER_MARK.length && BYTE_ORDER_MARK.subarray(0, all.length).equals(all)) {
      held = all;
      return Buffer.alloc(0);
    }
    held = undefined;
    return all.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK) ? all.subarray(BYTE_ORDER_MARK.length) : all;
  };
}

/**
 * Cuts a JSON array into the texts of its elements. It looks at brackets and quotes only; whether an element is JSON
 * is for the parser to say.
 */
export function createArraySplitter(maxRecordBytes: number): RecordSplitter {
  const record = createCollector(maxRecordBytes);
  const withoutMark = createMarkRemover();
  let place: 'before array' | 'before record' | 'in record' | 'after array' = 'before array';
  let depth = 0;
  let inString = false;
  let escaped = false;
  let afterComma = false;

  /** Whether the byte, met outside of any record, begins one. */
  function beginsRecord(byte: number): boolean {
    if (isBlank(byte)) return false;
    if (place === 'before array') {
      if (byte !== OPEN_BRACKET) throw new FileProblem('not a JSON array of records: it does not begin with [');
      place = 'before record';
    } else if (place === 'after array') {
      throw new FileProblem(`not JSON: there is more after the end of the array, behind record ${record.index() - 1}`);
    } else if (byte === CLOSE_BRACKET && !afterComma) {
      place = 'after array';
    } else if (byte === COMMA || byte === CLOSE_BRACKET) {
      throw new FileProblem(`not JSON: record ${record.index()} is missing before a comma or the end of the array`);
    } else {
      return true;
    }
    return false;
  }

  /** Whether the byte, met at depth 0, ends the record. */
  function endsRecord(byte: number): boolean {
    if (inString) {
      if (escaped) escaped = false;
      else if (byte === BACKSLASH) escaped = true;
      else if (byte === QUOTE) inString = false;
      return false;
    }
    if (byte === QUOTE) inString = true;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth += 1;
    else if (byte === CLOSE_BRACE) depth -= 1;
    else if (byte === CLOSE_BRACKET) {
      if (depth === 0) return true;
      depth -= 1;
    } else if (byte === COMMA) return depth === 0;
    if (depth < 0) throw new FileProblem(`not JSON: record ${record.index()} closes a brace that it did not open`);
    return false;
  }

  return {
    push: (chunk) => {
      const bytes = withoutMark(chunk);
      const records: RawRecord[] = [];
      let start = 0; // of the record that the chunk before left open, or of the one that began last
      for (let at = 0; at < bytes.length; at += 1) {
        const byte = bytes[at] ?? 0;
        if (place !== 'in record') {
          if (!beginsRecord(byte)) continue;
          place = 'in record';
          start = at;
        }
        if (!endsRecord(byte)) continue;
        record.add(bytes.subarray(start, at));
        records.push(record.take());
        afterComma = byte === COMMA;
        place = afterComma ? 'before record' : 'after array';
      }
      if (place === 'in record') record.add(bytes.subarray(start));
      return records;
    },
    end: () => {
      if (place === 'before array') throw new FileProblem('empty: it holds no JSON');
      if (place !== 'after array') {
        throw new FileProblem(`ends too early: the array is not closed, in or behind record ${record.index()}`);
      }
      return [];
    },
  };
}

/** Cuts lines; each that is not blank is a record. */
export function createLineSplitter(maxRecordBytes: number): RecordSplitter {
  const record = createCollector(maxRecordBytes);
  const withoutMark = createMarkRemover();
  let blank = true;

  return {
    push: (chunk) => {
      const bytes = withoutMark(chunk);
      const records: RawRecord[] = [];
      let start = 0;
      while (start < bytes.length) {
        const feed = bytes.indexOf(LINE_FEED, start);
        const line = bytes.subarray(start, feed === -1 ? bytes.length : feed);
        if (!blank || !line.every(isBlank)) {
          blank = false;
          record.add(line);
        }
        if (feed === -1) break;
        if (!blank) records.push(record.take());
        blank = true;
        start = feed + 1;
      }
      return records;
    },
    end: () => {
      if (!blank) return [record.take()];
      if (record.index() === 0) throw new FileProblem('empty: it holds no JSON');
      return [];
    },
  };
}
