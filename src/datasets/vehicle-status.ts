import { z } from 'zod';
import { createDataset, scalarText } from './dataset.ts';
import { monthOf } from './time.ts';

/** How vehicles are: `vehicles_status_*.json`, every report in the history and the newest one of each vehicle. */
export const vehicleStatus = createDataset({
  name: 'status',
  prefix: 'vehicles_status_',
  timeField: 'report_time',
  idColumn: 'status_id',
  fields: { status_source: z.string(), status: scalarText },
  take: (vehicleId, time, columns) => {
    const month = monthOf(time.ms);
    // Emptied, not unset: else an older report's unknown fields would shine through a newer one without any.
    const newest = { ...columns, unknown_fields: columns['unknown_fields'] ?? null };
    const timestamp = BigInt(time.ms) * 1000n + BigInt(Math.floor(time.nanos / 1000));
    const rank = `${String(time.nanos).padStart(6, '0')} ${columns['status_id']}`;
    return {
      rows: [
        { table: 'vehicle_status_history', partition: `${month} ${vehicleId}`, values: { month, ...columns } },
        { table: 'vehicle_status', partition: vehicleId, values: newest, timestamp, rank },
      ],
    };
  },
});
