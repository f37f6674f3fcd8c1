import { createDataset, objectText, scalarText, shortText, text } from './dataset.ts';
import { dayOf, hourOf } from './time.ts';

/** What vehicles did: `vehicles_events_*.json`, one row an event, folded into hourly and daily summaries. */
export const vehicleEvents = createDataset({
  name: 'events',
  prefix: 'vehicles_events_',
  timeField: 'event_time',
  idColumn: 'event_id',
  fields: { event_source: text, event_type: shortText(0), event_value: scalarText, event_extra_data: objectText },
  rows: (own) => {
    const columns = ['day', ...own];
    return ({ vehicleId, time, id, values }) => {
      const day = dayOf(time.ms);
      return {
        rows: [
          { table: 'vehicle_events', partition: `${day} ${vehicleId}`, key: id, columns, values: [day, ...values] },
        ],
        touched: { vehicleId, hour: hourOf(time.ms) },
      };
    };
  },
});
