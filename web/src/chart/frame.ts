// Draws at most once per animation frame, however often the data changes.

export interface Frame {
  request(): void;
  cancel(): void;
}

export function perFrame(draw: () => void): Frame {
  let id: number | null = null;
  return {
    request() {
      id ??= requestAnimationFrame(() => {
        id = null;
        draw();
      });
    },
    cancel() {
      if (id !== null) cancelAnimationFrame(id);
      id = null;
    },
  };
}
