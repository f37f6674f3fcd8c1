import { z } from 'zod';
import { isRejection, recordCheck, scalarText, vehicleId, type Dataset } from './dataset.ts';
import { monthOf } from './time.ts';

const check = recordCheck('report_time', {
  vehicle_id: vehicleId,
  report_time: z.string(),
  status_source: z.string(),
  status: scalarText,
});

/** How vehicles are: `vehicles_status_*.json`, every report in the history and the newest one of each vehicle. */
export const vehicleStatus: Dataset = {
  name: 'status',
  prefix: 'vehicles_status_',
  read: (record, context) => {
    const checked = check(record, context);
    if (isRejection(checked)) return checked;
    const { id, time, fields, common } = checked;
    const month = monthOf(time.ms);
    const report = {
      ...fields,
      report_time: new Date(time.ms),
      report_time_nanos: time.nanos,
      status_id: id,
      ...common,
    };
    return {
      rows: [
        { table: 'vehicle_status_history', partition: `${month} ${fields.vehicle_id}`, values: { month, ...report } },
        {
          table: 'vehicle_status',
          partition: fields.vehicle_id,
          // Emptied, not unset: else an older report's unknown fields would shine through a newer one without any.
          values: { ...report, unknown_fields: common.unknown_fields ?? null },
          timestamp: BigInt(time.ms) * 1000n + BigInt(Math.floor(time.nanos / 1000)),
        },
      ],
    };
  },
};
