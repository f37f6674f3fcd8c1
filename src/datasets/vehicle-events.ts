import { createDataset, objectText, scalarText, shortText, text } from './dataset.ts';
import { dayOf, hourOf } from './time.ts';

/** What vehicles did: `vehicles_events_*.json`, one row an event, folded into hourly and daily summaries. */
export const vehicleEvents = createDataset({
  name: 'events',
  prefix: 'vehicles_events_',
  timeField: 'event_time',
  idColumn: 'event_id',
  bucketColumn: 'day',
  bucketOf: dayOf,
  fields: { event_source: text, event_type: shortText(0), event_value: scalarText, event_extra_data: objectText },
  rows:
    (columns) =>
    ({ vehicleId, bucket, time, id, values }) => ({
      rows: [{ table: 'vehicle_events', partition: `${bucket} ${vehicleId}`, key: id, columns, values }],
      touched: { vehicleId, hour: hourOf(time.ms) },
    }),
});
