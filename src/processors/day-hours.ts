import { dayOf } from '../datasets/time.ts';
import type { TouchedHour } from '../storage/change-log.ts';
import type { StoredDay } from '../storage/summaries.ts';

/** A day of a vehicle, and which of its hours are meant, as starts in ms since the epoch, or all. */
export type DayHours = { readonly stored: StoredDay; hours: Set<number> | 'all' };

/** Distinct hours and whole days, gathered by day. */
export function createDayHours() {
  const days = new Map<string, DayHours>();
  let keys = 0;
  return {
    keys: () => keys,
    add: (key: TouchedHour | StoredDay) => {
      const stored = 'hour' in key ? { vehicleId: key.vehicleId, day: dayOf(key.hour) } : key;
      const id = `${stored.day} ${stored.vehicleId}`;
      const day = days.get(id) ?? { stored, hours: new Set() };
      days.set(id, day);
      if (day.hours === 'all' || ('hour' in key && day.hours.has(key.hour))) return;
      keys += 1;
      if ('hour' in key) day.hours.add(key.hour);
      else day.hours = 'all';
    },
    /** What was gathered; it starts anew. */
    take: (): DayHours[] => {
      const taken = [...days.values()];
      days.clear();
      keys = 0;
      return taken;
    },
  };
}
