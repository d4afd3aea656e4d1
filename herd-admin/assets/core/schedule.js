// One drawing for any number of changes.
let draw = () => {};
let due = false;

export function drawWith(function_) {
  draw = function_;
}

export function refresh() {
  if (due) return;
  due = true;
  const run = () => {
    if (!due) return;
    due = false;
    draw();
  };
  // A hidden page gets no frames; what it shows is drawn when it is seen again.
  requestAnimationFrame(run);
}
