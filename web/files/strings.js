// Every sentence about a state, by its id. {name} is filled in; actions are
// what the person can do about it, the most helpful first.
export const states = {
  // before lending
  'insecure': ['Browsers compute only on secure pages. First: the warning you will meet.', 'Continue'],
  'no-webgpu': ['This browser gives no graphics access. The processor can help, more slowly.', 'Lend the processor', 'Only chat'],
  'software-gpu': ['The graphics chip is only simulated. The processor can help, more slowly.', 'Lend the processor', 'Only chat'],
  'low-memory': ['This device could reserve {have}; the smallest share needs {need}. Close other tabs.', 'Try again', 'Only chat'],
  'token': ['This invitation is wrong or has expired. Scan the code again.', 'Type the code'],

  // lending
  'loading': ['{loaded} of {total} MB, {rate} MB/s, about {left} left.', 'Stop lending'],
  'stalled': ['The network is silent. {loaded} MB are safe here.', 'Stop lending'],
  'idle': ['Ready with layers {a} to {b}. Waiting for a question.', 'Stop lending'],
  'spare': ['Ready in reserve. You step in when someone leaves.', 'Stop lending'],
  'working': ['{tok_s} tok/s, layers {a} to {b}, {n} tokens served.', 'Stop lending'],
  'hidden': ['This tab was hidden for {t}. Browsers slow hidden tabs: keep it in front.', 'OK'],
  'throttled': ['The browser slows this tab to {p} %. Plug in.', 'Lend less'],
  'device-lost': ['The graphics chip stopped. Restarting; nothing is fetched twice.', 'Restart'],
  'killed': ['The browser closed this tab while loading, probably for memory.', 'Lend {half}', 'Only chat'],
  'ended': ['Memory is free; {x} GB stay for next time.', 'Lend again', 'Delete them'],

  // everywhere
  'rejoining': ['Connection lost. Trying again in {s} s.', 'Try now'],
  'gone': ['No answer from the coordinator since {time}. Same Wi-Fi?', 'Try now'],
  'version': ['Potluck was updated. What was fetched is kept.', 'Reload'],
  'error': ['{what}. {next}.', 'Retry', 'Details'],

  // chat
  'short': ['{model} needs {x} GB more: {n} more like {device}. Your question waits.', 'Invite', 'Cancel'],
  'queued': ['Number {n} in the queue, about {t}.', 'Cancel'],
  'prefill': ['Reading your text: {done} of {all} tokens.', 'Stop'],
  'moving': ['A computer left. {device} takes its part; the answer goes on.', 'Stop'],
  'stopped': ['You stopped here.', 'Continue', 'Again'],
  'reloaded': ['The page was reloaded meanwhile.', 'Continue', 'Again'],
  'full': ['This browser’s storage is full.', 'Export', 'Delete old'],
};

// What the pages say besides states.
export const say = {
  recovered: 'A computer left; nothing was lost.',
  joining: 'Asking to join…',
  measuring: 'Measuring how fast this computer is…',
  comeBack: 'Come back',
  noSecrets: 'Write no secrets: computers in this room could reconstruct your text.',
};

// fill puts values into a sentence; a name without a value stays visible.
export function fill(sentence, values = {}) {
  return sentence.replace(/\{(\w+)\}/g, (whole, name) => name in values ? String(values[name]) : whole);
}

// Numbers and dates as this browser's language writes them.
const number = digits => new Intl.NumberFormat(undefined, {maximumFractionDigits: digits, minimumFractionDigits: digits});
const whole = number(0), one = number(1);
export const n0 = v => whole.format(v);
export const n1 = v => one.format(v);
export const mb = bytes => whole.format(Math.floor(bytes / 1e6));
const short = new Intl.NumberFormat(undefined, {maximumFractionDigits: 1});
export const gb = bytes => bytes < 9.95e9 ? short.format(bytes / 1e9) : whole.format(bytes / 1e9);
export const size = bytes => bytes < 9.95e6 ? short.format(bytes / 1e6) + ' MB' : bytes < 9.95e8 ? mb(bytes) + ' MB' : gb(bytes) + ' GB';
// speed keeps three digits at most: 0.4, 12.9, 130.
export const speed = v => v < 99.95 ? n1(v) : n0(v);
export const ms = v => (v < 9.95 ? n1(v) : n0(v)) + ' ms';
export const clock = date => new Intl.DateTimeFormat(undefined, {hour: '2-digit', minute: '2-digit'}).format(date);

// span is a time in words: "40 s", "3 min", "2 h".
export function span(seconds) {
  if (!Number.isFinite(seconds)) return '…';
  if (seconds < 90) return n0(Math.max(1, Math.round(seconds))) + ' s';
  if (seconds < 5400) return n0(Math.round(seconds / 60)) + ' min';
  return n0(Math.round(seconds / 3600)) + ' h';
}
