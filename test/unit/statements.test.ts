import { types } from 'cassandra-driver';
import { expect, it } from 'vitest';
import { parametersOf } from '../../src/storage/statements.ts';

const columns = ['day', 'vehicle_id', 'event_type', 'file_name'];
const rowOf = (...values: readonly (string | null | undefined)[]) => {
  return { table: 'vehicle_events', partition: 'any', key: 'any', columns, values };
};
const textOf = (value: unknown) => (value instanceof Buffer ? value.toString() : value);

it('texts that rows share are encoded as they are, however many and however long they are', () => {
  const texts = Array.from({ length: 3_000 }, (_, n) => `${n % 2_000} ${'ü'.repeat(n % 300)}`);
  const parameters = parametersOf(texts.map((text) => rowOf('2026-11-29', text, text, text)));
  expect(parameters.map(textOf)).toEqual(
    texts.flatMap((text) => [types.LocalDate.fromString('2026-11-29').toBuffer().toString(), text, text, text]),
  );
  // What rows do not share is left to the driver.
  expect(parameters.slice(0, 4).map((value) => value instanceof Buffer)).toEqual([true, false, true, true]);
});

it('a day is the number of days since 1970, from the middle of 32 bits', () => {
  const daysOf = (day: string) => (parametersOf([rowOf(day)])[0] as Buffer).readUInt32BE() - 2 ** 31;
  expect(daysOf('1970-01-01')).toBe(0);
  expect(daysOf('2026-11-29')).toBe(Date.parse('2026-11-29') / 86_400_000);
  expect(daysOf('0000-01-01')).toBe(Date.parse('0000-01-01') / 86_400_000);
});

it('what is unset or emptied stays so, and a write time comes last', () => {
  const row = { ...rowOf('2026-11-29', undefined, null, undefined), timestamp: 5n };
  expect(parametersOf([row]).slice(1)).toEqual([undefined, null, undefined, 5n]);
});
