import { compareMoments, type Moment } from './time.ts';

/** What an event adds to a summary. */
export interface SummarizedEvent {
  readonly time: Moment;
  /** Breaks the tie between events of the very same nanosecond: the greatest id counts as the last. */
  readonly id: string;
  readonly type: string;
  readonly source: string;
  readonly value: string;
}

/** The events of a vehicle in an hour or a day, folded. */
export interface Summary {
  readonly count: number;
  readonly first: Moment;
  readonly last: SummarizedEvent;
  /** How often each event type came; the counts add up to `count`. */
  readonly typeCounts: ReadonlyMap<string, number>;
}

function later(a: SummarizedEvent, b: SummarizedEvent): SummarizedEvent {
  return (compareMoments(a.time, b.time) || (a.id < b.id ? -1 : 1)) < 0 ? b : a;
}

/** Folds events and summaries of disjoint events into one summary; the order of adding is free. */
export interface SummaryFold {
  addEvent(event: SummarizedEvent): void;
  addSummary(summary: Summary): void;
  /** undefined when nothing was added. */
  result(): Summary | undefined;
}

export function createSummaryFold(): SummaryFold {
  let count = 0;
  let first: Moment | undefined;
  let last: SummarizedEvent | undefined;
  const typeCounts = new Map<string, number>();

  function add(events: number, earliest: Moment, latest: SummarizedEvent): void {
    count += events;
    if (first === undefined || compareMoments(earliest, first) < 0) first = earliest;
    last = last === undefined ? latest : later(last, latest);
  }
  function addType(type: string, events: number): void {
    typeCounts.set(type, (typeCounts.get(type) ?? 0) + events);
  }

  return {
    addEvent: (event) => {
      add(1, event.time, event);
      addType(event.type, 1);
    },
    addSummary: (summary) => {
      add(summary.count, summary.first, summary.last);
      for (const [type, events] of summary.typeCounts) addType(type, events);
    },
    result: () => (first === undefined || last === undefined ? undefined : { count, first, last, typeCounts }),
  };
}
