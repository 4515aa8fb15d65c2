const log = document.getElementById("log");
const events = new EventSource("/-/starting/log");
events.addEventListener("log", (event) => {
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  log.append(JSON.parse(event.data));
  while (log.childNodes.length > 400) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
});
events.addEventListener("over", () => {
  events.close();
  location.reload();
});
