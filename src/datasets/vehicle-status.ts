import { createDataset, scalarText, text } from './dataset.ts';
import { microsOf, monthOf } from './time.ts';

/** How vehicles are: `vehicles_status_*.json`, every report in the history and the newest one of each vehicle. */
export const vehicleStatus = createDataset({
  name: 'status',
  prefix: 'vehicles_status_',
  timeField: 'report_time',
  idColumn: 'status_id',
  bucketColumn: 'month',
  bucketOf: monthOf,
  fields: { status_source: text, status: scalarText },
  rows: (columns) => {
    const own = columns.slice(1);
    return ({ vehicleId, bucket, time, id, values }) => {
      // Emptied, not unset: else an older report's unknown fields would shine through a newer one without any.
      const newest = own.map((_, at) => values[at + 1] ?? null);
      const timestamp = microsOf(time);
      const rank = `${String(time.nanos).padStart(6, '0')} ${id}`;
      return {
        rows: [
          { table: 'vehicle_status_history', partition: `${bucket} ${vehicleId}`, key: id, columns, values },
          { table: 'vehicle_status', partition: vehicleId, key: '', columns: own, values: newest, timestamp, rank },
        ],
      };
    };
  },
});
