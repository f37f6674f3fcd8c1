import { compareMoments, type Moment } from './time.ts';

/** What an event adds to a summary. Of events of the very same nanosecond, the one with the greatest id is the last. */
export interface SummarizedEvent {
  readonly time: Moment;
  readonly id: string;
  readonly type: string;
}

/**
 * Types that a summary counts each: the first ones by UTF-16 code unit, so that those of a day are among those of its
 * hours. However many there are, all further ones are counted together, as OTHER_TYPES: a summary is one row.
 */
const MAX_TYPES = 1_000;
const OTHER_TYPES = '(other)';

/** The events of a vehicle in an hour or a day, folded; the counts of the types add up to `count`. */
export interface Summary<Event extends SummarizedEvent = SummarizedEvent> {
  readonly count: number;
  readonly first: Moment;
  readonly last: Event;
  readonly typeCounts: ReadonlyMap<string, number>;
}

/** Folds events and summaries of disjoint events into one summary, in any order; of nothing it is undefined. */
export function createSummaryFold<Event extends SummarizedEvent>() {
  const typeCounts = new Map<string, number>();
  let count = 0;
  let first: Moment | undefined;
  let last: Event | undefined;

  function add(types: Iterable<readonly [string, number]>, earliest: Moment, latest: Event): void {
    for (const [type, events] of types) {
      count += events;
      typeCounts.set(type, (typeCounts.get(type) ?? 0) + events);
    }
    if (typeCounts.size > 2 * MAX_TYPES) joinOtherTypes();
    if (first === undefined || compareMoments(earliest, first) < 0) first = earliest;
    if (last === undefined || (compareMoments(last.time, latest.time) || (last.id < latest.id ? -1 : 1)) < 0)
      last = latest;
  }

  function joinOtherTypes(): void {
    if (typeCounts.size <= MAX_TYPES) return;
    let others = typeCounts.get(OTHER_TYPES) ?? 0;
    typeCounts.delete(OTHER_TYPES);
    for (const type of [...typeCounts.keys()].sort().slice(MAX_TYPES)) {
      others += typeCounts.get(type) ?? 0;
      typeCounts.delete(type);
    }
    if (others > 0) typeCounts.set(OTHER_TYPES, others);
  }

  return {
    addEvent: (event: Event) => add([[event.type, 1]], event.time, event),
    addSummary: (summary: Summary<Event>) => add(summary.typeCounts, summary.first, summary.last),
    result: (): Summary<Event> | undefined => {
      joinOtherTypes();
      return first && last && { count, first, last, typeCounts };
    },
  };
}
