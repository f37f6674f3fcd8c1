import type { Client, types } from 'cassandra-driver';
import type { EventRecord, ProviderFile } from './provider.ts';
import { eventWrite, idOf, momentOf } from './rows.ts';
import { until, type Space } from './space.ts';

// What is in Cassandra after a run, against what the files say. A figure of a run that fails here does not count.

async function rowsOf(client: Client, query: string, params: readonly unknown[] = []): Promise<types.Row[]> {
  const rows: types.Row[] = [];
  const result = await client.execute(query, [...params], { prepare: true, fetchSize: 5_000 });
  for await (const row of result) rows.push(row);
  return rows;
}

function expectSame(what: string, actual: unknown, expected: unknown): void {
  if (String(actual) !== String(expected)) throw new Error(`${what} is ${String(actual)}, not ${String(expected)}`);
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}

const keyOf = (row: types.Row) => `${row['vehicle_id']} ${String(row['day'])}`;
const dayOf = ({ event_time: time }: { event_time: string }) => time.slice(0, 10);

/**
 * @param comparedDays vehicles' days whose events are compared value by value; of the others only the number
 * @throws Error unless exactly the files' records are rows, and each vehicle's newest report is its status
 */
export async function checkRows(client: Client, files: readonly ProviderFile[], comparedDays = 3): Promise<void> {
  const events = files.flatMap(({ name, events: records }) => records.map((record) => ({ name, ...record })));
  const days = groupBy(events, (event) => `${event.vehicle_id} ${dayOf(event)}`);
  const stored = groupBy(await rowsOf(client, 'SELECT vehicle_id, day FROM vehicle_events'), keyOf);
  expectSame('the number of partitions of vehicle_events', stored.size, days.size);
  for (const [key, group] of days) expectSame(`the number of rows of ${key}`, stored.get(key)?.length, group.length);
  for (const [key, group] of [...days].slice(0, comparedDays)) {
    const query = 'SELECT * FROM vehicle_events WHERE vehicle_id = ? AND day = ?';
    const rows = new Map((await rowsOf(client, query, key.split(' '))).map((row) => [String(row['event_id']), row]));
    for (const { name, ...record } of group) {
      const row = rows.get(idOf(record));
      const columns = ['vehicle_id', 'day', 'event_time', 'event_id', 'event_time_nanos', 'event_source', 'event_type'];
      const all = [...columns, 'event_value', 'event_extra_data', 'file_name'];
      const actual = all.map((column) => String(row?.[column]));
      expectSame(`an event of ${key}`, actual, eventWrite(record, name).params.slice(0, 10).map(String));
    }
  }
  const reports = files.flatMap(({ statuses }) => statuses);
  const [history] = await rowsOf(client, 'SELECT count(*) AS rows FROM vehicle_status_history');
  expectSame('the number of rows of vehicle_status_history', history?.['rows'], reports.length);
  const newest = await rowsOf(client, 'SELECT vehicle_id, report_time, status FROM vehicle_status');
  const byVehicle = groupBy(reports, ({ vehicle_id: vehicle }) => vehicle);
  expectSame('the number of rows of vehicle_status', newest.length, byVehicle.size);
  for (const row of newest) {
    const all = byVehicle.get(row['vehicle_id']) ?? [];
    const last = all.reduce((a, b) => (momentOf(b.report_time).micros > momentOf(a.report_time).micros ? b : a));
    const expected = [momentOf(last.report_time).time, last.status];
    expectSame(`the status of ${row['vehicle_id']}`, [row['report_time'], row['status']], expected);
  }
}

/** @throws Error unless every file is in the ledger as loaded, with all of its records */
export async function checkLedger(client: Client, files: readonly ProviderFile[]): Promise<void> {
  const ledger = await rowsOf(client, 'SELECT name, state, loaded FROM files');
  expectSame('the number of ledger rows', ledger.length, files.length);
  const states = new Map(ledger.map((row) => [row['name'], row]));
  for (const { name, events, statuses } of files) {
    const row = states.get(name);
    expectSame(
      `the ledger's row of ${name}`,
      [row?.['state'], row?.['loaded']],
      ['loaded', events.length + statuses.length],
    );
  }
}

/** Folds events into their number and the type of the last one, by `vehicle day`. */
export function createSummaryFold() {
  const days = new Map<string, { count: number; last: EventRecord }>();
  const isLater = (a: EventRecord, b: EventRecord) =>
    a.event_time > b.event_time || (a.event_time === b.event_time && idOf(a) > idOf(b));
  return {
    add: (events: readonly EventRecord[]) => {
      for (const event of events) {
        const key = `${event.vehicle_id} ${dayOf(event)}`;
        const { count = 0, last = event } = days.get(key) ?? {};
        days.set(key, { count: count + 1, last: isLater(event, last) ? event : last });
      }
    },
    result: () => new Map([...days].map(([key, { count, last }]) => [key, `${count} ${last.event_type}`])),
  };
}

export function summariesOf(events: readonly EventRecord[]): Map<string, string> {
  const fold = createSummaryFold();
  fold.add(events);
  return fold.result();
}

/** @throws Error unless the daily summaries are those of the events */
export async function checkSummaries(client: Client, expected: ReadonlyMap<string, string>): Promise<void> {
  const rows = await rowsOf(client, 'SELECT vehicle_id, day, event_count, last_event_type FROM daily_summary');
  expectSame('the number of daily summaries', rows.length, expected.size);
  for (const row of rows) {
    const key = keyOf(row);
    expectSame(`the summary of ${key}`, `${row['event_count']} ${row['last_event_type']}`, expected.get(key));
  }
}

/** Aggregates until the summaries are right, which needs the settle time. @throws Error when they stay wrong */
export async function checkAggregated(space: Space, files: readonly ProviderFile[]): Promise<void> {
  const expected = summariesOf(files.flatMap(({ events }) => events));
  let problem: unknown;
  const isRight = async () => {
    await space.run('aggregate');
    problem = await checkSummaries(space.client, expected).catch((error: unknown) => error);
    return problem === undefined;
  };
  await until('the summaries are right', isRight, { everyMs: 1_000, withinMs: 60_000 }).catch(() => {
    throw problem;
  });
}
