import { z } from 'zod';
import { isRejection, jsonObject, recordCheck, scalarText, vehicleId, type Dataset, type RowTable } from './dataset.ts';
import { dayOf, hourOf } from './time.ts';

const check = recordCheck(
  {
    vehicle_id: vehicleId,
    event_time: z.string(),
    event_source: z.string(),
    event_type: z.string(),
    event_value: scalarText,
    event_extra_data: jsonObject,
  },
  'event_time',
);

const table: RowTable = {
  name: 'vehicle_events',
  columns: [
    'vehicle_id',
    'day',
    'event_time',
    'event_id',
    'event_time_nanos',
    'event_source',
    'event_type',
    'event_value',
    'event_extra_data',
    'unknown_fields',
    'file_name',
    'file_version',
  ],
  timestamped: false,
};

/** What vehicles did: `vehicles_events_*.json`, one row an event, folded into hourly and daily summaries. */
export const vehicleEvents: Dataset = {
  name: 'events',
  prefix: 'vehicles_events_',
  read: (record, context) => {
    const checked = check(record, context);
    if (isRejection(checked)) return checked;
    const { id, time, fields, unknownFields } = checked;
    const day = dayOf(time.ms);
    return {
      rows: [
        {
          table,
          partition: `${day} ${fields.vehicle_id}`,
          values: [
            fields.vehicle_id,
            day,
            new Date(time.ms),
            id,
            time.nanos,
            fields.event_source,
            fields.event_type,
            fields.event_value,
            fields.event_extra_data,
            unknownFields,
            context.lineage.name,
            context.lineage.version,
          ],
        },
      ],
      touched: { vehicleId: fields.vehicle_id, hour: hourOf(time.ms) },
    };
  },
};
