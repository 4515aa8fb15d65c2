// node test/serve.mjs [PORT]
// Serves what `npm run build` built, with real shells behind it, to look at in a browser. For oneself: who reaches the port
// has a shell. SHLOGIN_ACCESS=view or =type shows a guest's page.
import { Gateway } from './gateway.mjs';

const gateway = new Gateway();
gateway.access = process.env.SHLOGIN_ACCESS ?? 'owner';
console.log(await gateway.listen(Number(process.argv[2] ?? 0)));
