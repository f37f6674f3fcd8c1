import { z } from 'zod';
import { isRejection, jsonObject, recordCheck, scalarText, vehicleId, type Dataset } from './dataset.ts';
import { dayOf, hourOf } from './time.ts';

const check = recordCheck('event_time', {
  vehicle_id: vehicleId,
  event_time: z.string(),
  event_source: z.string(),
  event_type: z.string(),
  event_value: scalarText,
  event_extra_data: jsonObject,
});

/** What vehicles did: `vehicles_events_*.json`, one row an event, folded into hourly and daily summaries. */
export const vehicleEvents: Dataset = {
  name: 'events',
  prefix: 'vehicles_events_',
  read: (record, context) => {
    const checked = check(record, context);
    if (isRejection(checked)) return checked;
    const { id, time, fields, common } = checked;
    const day = dayOf(time.ms);
    const values = {
      ...fields,
      day,
      event_time: new Date(time.ms),
      event_time_nanos: time.nanos,
      event_id: id,
      ...common,
    };
    return {
      rows: [{ table: 'vehicle_events', partition: `${day} ${fields.vehicle_id}`, values }],
      touched: { vehicleId: fields.vehicle_id, hour: hourOf(time.ms) },
    };
  },
};
