import { isUtf8 } from 'node:buffer';
import { FileProblem } from './data-file.ts';

/** One record of a file as it was sent, or why its text cannot be had. `index` counts from 0. */
export interface RawRecord {
  readonly index: number;
  readonly text: string;
  readonly problem?: string;
}

/** Cuts a stream of bytes into records; its memory is one record. Both throw FileProblem when this is no such file. */
export interface RecordSplitter {
  /** Takes the next bytes and returns the records that they end. */
  push(bytes: Buffer): RawRecord[];
  /** Takes the end of the file and returns a last record. */
  end(): RawRecord[];
}

const [LINE_FEED, CARRIAGE_RETURN, TAB, SPACE] = [0x0a, 0x0d, 0x09, 0x20];
const [QUOTE, COMMA, BACKSLASH] = [0x22, 0x2c, 0x5c];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
/** Bytes of an oversized record that are kept, to show what it was. */
const KEPT_OF_OVERSIZED = 4_096;

function isBlank(byte: number): boolean {
  return byte === SPACE || byte === LINE_FEED || byte === CARRIAGE_RETURN || byte === TAB;
}

/** Collects the bytes of one record across chunks, and gives up on one that grows too large. */
function createCollector(maxBytes: number) {
  let parts: Buffer[] = [];
  let size = 0;
  let index = 0;
  return {
    index: () => index,
    add: (bytes: Buffer) => {
      if (size <= maxBytes) parts.push(bytes);
      size += bytes.length;
    },
    take: (): RawRecord => {
      const bytes = parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts);
      const record = { index, text: bytes.toString('utf8') };
      const tooLarge = size > maxBytes;
      const found = size;
      [parts, size, index] = [[], 0, index + 1];
      if (tooLarge) {
        const text = bytes.toString('utf8', 0, KEPT_OF_OVERSIZED);
        return { ...record, text, problem: `larger than MAX_RECORD_BYTES: ${found} of at most ${maxBytes} bytes` };
      }
      return isUtf8(bytes) ? record : { ...record, text: bytes.toString('latin1'), problem: 'not UTF-8 text' };
    },
  };
}

/** Drops a leading byte order mark, also one that is cut by a chunk's end; bytes that only begin like one stay. */
function createMarkRemover() {
  let held: Buffer | undefined = Buffer.alloc(0);
  return (bytes: Buffer): Buffer => {
    if (held === undefined) return bytes;
    held = Buffer.concat([held, bytes]);
    const isMark = BYTE_ORDER_MARK.equals(held.subarray(0, BYTE_ORDER_MARK.length));
    if (!isMark && BYTE_ORDER_MARK.subarray(0, held.length).equals(held)) return Buffer.alloc(0);
    const rest: Buffer = isMark ? held.subarray(BYTE_ORDER_MARK.length) : held;
    held = undefined;
    return rest;
  };
}

/**
 * Cuts a JSON array into the texts of its elements. It looks at brackets and quotes only; whether an element is JSON
 * is for the parser to say.
 */
export function createArraySplitter(maxRecordBytes: number): RecordSplitter {
  const record = createCollector(maxRecordBytes);
  const withoutMark = createMarkRemover();
  let place: 'before array' | 'before first' | 'after comma' | 'in record' | 'after array' = 'before array';
  let depth = 0;
  let inString = false;
  let escaped = false;

  /** Where a byte outside of any record leads to. */
  function placeAfter(byte: number): typeof place {
    if (isBlank(byte)) return place;
    const isForeign = byte === 0 || (place === 'before array' && byte >= 0xfe);
    if (isForeign) {
      const found = `0x${byte.toString(16).padStart(2, '0')}`;
      throw new FileProblem(`not UTF-8 text: a byte ${found} where JSON begins, as UTF-16 has it`);
    }
    switch (place) {
      case 'before array':
        if (byte === OPEN_BRACKET) return 'before first';
        throw new FileProblem('not a JSON array of records: it does not begin with [');
      case 'after array':
        throw new FileProblem(
          `not JSON: there is more after the end of the array, behind record ${record.index() - 1}`,
        );
      default:
        if (byte === CLOSE_BRACKET && place === 'before first') return 'after array';
        if (byte !== COMMA && byte !== CLOSE_BRACKET) return 'in record';
        throw new FileProblem(`not JSON: record ${record.index()} is missing before a comma or the end of the array`);
    }
  }

  /** Whether a byte inside a record ends it: a comma or the closing bracket outside of strings and nesting. */
  function endsRecord(byte: number): boolean {
    if (inString) {
      if (escaped) escaped = false;
      else if (byte === BACKSLASH) escaped = true;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth += 1;
    else if (depth === 0 && (byte === COMMA || byte === CLOSE_BRACKET)) return true;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth -= 1;
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
          place = placeAfter(byte);
          start = at;
        }
        if (place !== 'in record' || !endsRecord(byte)) continue;
        record.add(bytes.subarray(start, at));
        records.push(record.take());
        place = byte === COMMA ? 'after comma' : 'after array';
      }
      if (place === 'in record') record.add(bytes.subarray(start));
      return records;
    },
    end: () => {
      if (place === 'after array') return [];
      if (place === 'before array') throw new FileProblem('empty: it holds no JSON');
      throw new FileProblem(`ends too early: the array is not closed, in or behind record ${record.index()}`);
    },
  };
}

/** Cuts lines; each that is not blank is a record. */
export function createLineSplitter(maxRecordBytes: number): RecordSplitter {
  const record = createCollector(maxRecordBytes);
  const withoutMark = createMarkRemover();
  let blank = true;

  function addLine(line: Buffer): void {
    blank &&= line.every(isBlank);
    if (!blank) record.add(line);
  }
  return {
    push: (chunk) => {
      const bytes = withoutMark(chunk);
      const records: RawRecord[] = [];
      let start = 0;
      for (let end = bytes.indexOf(LINE_FEED); end !== -1; end = bytes.indexOf(LINE_FEED, start)) {
        addLine(bytes.subarray(start, end));
        if (!blank) records.push(record.take());
        blank = true;
        start = end + 1;
      }
      addLine(bytes.subarray(start));
      return records;
    },
    end: () => {
      if (!blank) return [record.take()];
      if (record.index() === 0) throw new FileProblem('empty: it holds no JSON');
      return [];
    },
  };
}
