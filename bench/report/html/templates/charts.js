// Charts: drawn by plotly when they come near the window, and drawn anew in another theme.
function drawChart(chart, element, number) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const choice = chart.choices[number];
  const traces = structuredClone(choice.traces);
  for (const trace of traces) {
    for (const part of [trace.marker, trace.line]) {
      if (part && part.color === "#000000") part.color = color("--text"); // black cannot be seen on black
    }
  }
  const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), automargin: true };
  const named = traces.filter((trace) => trace.showlegend !== false);
  const legendLines = Math.ceil(named.length / Math.max(1, Math.floor(element.clientWidth / 240)));
  const layout = structuredClone(choice.layout);
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("--text"), family: "system-ui, sans-serif", size: 13 },
    margin: { t: 20, r: 20, b: 50, l: 60 }, height: (layout.height || 420) + legendLines * 20,
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, hovermode: "closest",
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  });
  Plotly.react(element, traces, layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

for (const chart of report.charts) {
  const element = document.getElementById(chart.id);
  const select = document.querySelector(`select[data-choice="${chart.id}"]`);
  const draw = () => drawChart(chart, element, select ? Number(select.value) : 0);
  whenNear(element, () => {
    draw();
    themeListeners.push(draw);
    if (select) select.addEventListener("change", draw);
  });
}
