// The page before the browser's warning: what it will look like, and the way on.
import {$, put, StateLine} from './dom.js';

const agent = navigator.userAgent;
const mine = /Edg\//.test(agent) ? 'edge' : /Firefox\/|FxiOS/.test(agent) ? 'firefox' : /Chrome\/|CriOS/.test(agent) ? 'chrome' : 'safari';
const own = document.querySelector(`[data-browser=${mine}]`);
own.classList.add('mine');
own.parentElement.prepend(own);
$('#in-app').hidden = !/FBAN|FBAV|Instagram|Line\/|MicroMessenger|; wv\)/.test(agent);

const path = location.pathname === '/j' ? '/join' : location.pathname;
new StateLine($('#state')).show('insecure', {}, {'Continue': () => { location.href = `https://${location.host}${path}${location.search}${location.hash}`; }});

try {
  const {words} = await (await fetch('/v1/certificate')).json();
  if (words) {
    put($('#words'), words);
    $('#named').hidden = false;
  }
} catch { /* the page says enough without */ }
