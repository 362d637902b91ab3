// How much of a processor a tab lends.

// usualThreads leaves a core to the person in front of the screen.
export function usualThreads() {
  const cores = navigator.hardwareConcurrency || 1;
  return cores > 2 ? Math.min(cores - 1, 16) : cores;
}
