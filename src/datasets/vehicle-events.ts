import { z } from 'zod';
import { createDataset, objectText, scalarText } from './dataset.ts';
import { dayOf, hourOf } from './time.ts';

/** What vehicles did: `vehicles_events_*.json`, one row an event, folded into hourly and daily summaries. */
export const vehicleEvents = createDataset({
  name: 'events',
  prefix: 'vehicles_events_',
  timeField: 'event_time',
  idColumn: 'event_id',
  fields: {
    event_source: z.string(),
    event_type: z.string().max(256),
    event_value: scalarText,
    event_extra_data: objectText,
  },
  take: (vehicleId, time, columns) => {
    const day = dayOf(time.ms);
    return {
      rows: [{ table: 'vehicle_events', partition: `${day} ${vehicleId}`, values: { day, ...columns } }],
      touched: { vehicleId, hour: hourOf(time.ms) },
    };
  },
});
