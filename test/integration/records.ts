/** Records as the provider sends them; a test changes what it is about. */
export interface ProviderEvent {
  readonly vehicle_id: string;
  readonly event_time: string;
  readonly event_source: string;
  readonly event_type: string;
  readonly event_value: string;
  readonly event_extra_data: Readonly<Record<string, unknown>>;
}

export interface ProviderStatus {
  readonly vehicle_id: string;
  readonly report_time: string;
  readonly status_source: string;
  readonly status: string;
}

let serial = 0;

/** An event like no other: its value is never used twice. */
export function event(changes: Partial<ProviderEvent> & Record<string, unknown> = {}): ProviderEvent {
  serial += 1;
  return {
    vehicle_id: 'vehicle-1',
    event_time: '2026-11-20T10:00:00.000001',
    event_source: 'gps',
    event_type: 'speed',
    event_value: `${serial}.5`,
    event_extra_data: { note: 'Within limits.', boot_time: serial, emergency_call: false },
    ...changes,
  };
}

/** So many events, a second apart, from the changes' `event_time` or ten in the morning on. */
export function events(count: number, changes: Partial<ProviderEvent> = {}): ProviderEvent[] {
  const start = Date.parse(`${changes.event_time ?? '2026-11-20T10:00:00'}Z`);
  return Array.from({ length: count }, (_, n) =>
    event({ ...changes, event_time: `${new Date(start + n * 1_000).toISOString().slice(0, 19)}.123456` }),
  );
}

export function status(changes: Partial<ProviderStatus> & Record<string, unknown> = {}): ProviderStatus {
  return {
    vehicle_id: 'vehicle-1',
    report_time: '2026-11-20T10:00:00.000001',
    status_source: 'driver',
    status: 'parked',
    ...changes,
  };
}
