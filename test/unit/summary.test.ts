import { describe, expect, it } from 'vitest';
import { createSummaryFold, type SummarizedEvent, type Summary } from '../../src/datasets/summary.ts';

const events: SummarizedEvent[] = [
  { time: { ms: 5, nanos: 200 }, id: 'b', type: 'speed' },
  { time: { ms: 5, nanos: 201 }, id: 'a', type: 'brake' },
  { time: { ms: 5, nanos: 201 }, id: 'c', type: 'charge' },
  { time: { ms: -7, nanos: 999_999 }, id: 'd', type: 'speed' },
  { time: { ms: 4, nanos: 999_999 }, id: 'z', type: 'zzz' },
];

function* permutationsOf<T>(values: readonly T[]): Generator<T[]> {
  if (values.length < 2) yield [...values];
  for (const [at, value] of values.entries()) {
    if (values.length > 1) for (const rest of permutationsOf(values.toSpliced(at, 1))) yield [value, ...rest];
  }
}

function foldEvents(some: readonly SummarizedEvent[]): Summary | undefined {
  const fold = createSummaryFold();
  for (const event of some) fold.addEvent(event);
  return fold.result();
}

describe('a summary', () => {
  const expected = {
    count: 5,
    first: { ms: -7, nanos: 999_999 },
    last: events[2],
    typeCounts: new Map([
      ['speed', 2],
      ['brake', 1],
      ['charge', 1],
      ['zzz', 1],
    ]),
  };

  it('is the same in whatever order events come', () => {
    for (const order of permutationsOf(events)) expect(foldEvents(order)).toEqual(expected);
  });

  it('is the same in whatever parts events are folded first', () => {
    for (const order of permutationsOf(events)) {
      for (let cut = 0; cut <= order.length; cut += 1) {
        const day = createSummaryFold();
        for (const part of [order.slice(0, cut), order.slice(cut)]) {
          const hour = foldEvents(part);
          if (hour !== undefined) day.addSummary(hour);
        }
        expect(day.result()).toEqual(expected);
      }
    }
  });

  it('of nothing is undefined', () => {
    expect(createSummaryFold().result()).toBeUndefined();
  });
});
