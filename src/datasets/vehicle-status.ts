import { z } from 'zod';
import { isRejection, recordCheck, scalarText, vehicleId, type Dataset, type RowTable } from './dataset.ts';
import { monthOf } from './time.ts';

const check = recordCheck(
  { vehicle_id: vehicleId, report_time: z.string(), status_source: z.string(), status: scalarText },
  'report_time',
);

const columns = [
  'vehicle_id',
  'report_time',
  'status_id',
  'report_time_nanos',
  'status_source',
  'status',
  'unknown_fields',
  'file_name',
  'file_version',
];
const newest: RowTable = { name: 'vehicle_status', columns, timestamped: true };
const history: RowTable = { name: 'vehicle_status_history', columns: ['month', ...columns], timestamped: false };

/** How vehicles are: `vehicles_status_*.json`, every report in the history and the newest one of each vehicle. */
export const vehicleStatus: Dataset = {
  name: 'status',
  prefix: 'vehicles_status_',
  read: (record, context) => {
    const checked = check(record, context);
    if (isRejection(checked)) return checked;
    const { id, time, fields, unknownFields } = checked;
    const month = monthOf(time.ms);
    const values = (unknown: string | null | undefined) => [
      fields.vehicle_id,
      new Date(time.ms),
      id,
      time.nanos,
      fields.status_source,
      fields.status,
      unknown,
      context.lineage.name,
      context.lineage.version,
    ];
    return {
      rows: [
        { table: history, partition: `${month} ${fields.vehicle_id}`, values: [month, ...values(unknownFields)] },
        {
          table: newest,
          partition: fields.vehicle_id,
          // Emptied, not unset: else an older report's unknown fields would shine through a newer one without any.
          values: values(unknownFields ?? null),
          timestamp: BigInt(time.ms) * 1000n + BigInt(Math.floor(time.nanos / 1000)),
        },
      ],
    };
  },
};
