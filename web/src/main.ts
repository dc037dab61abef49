// The start of the page: opens the connection, starts reading the catalog, draws.

import { mount } from 'svelte';
import App from './App.svelte';
import { watchCatalog } from './store/catalog';
import { openSocket } from './store/live';
import './style/base.css';

openSocket();
watchCatalog();
mount(App, { target: document.getElementById('app') as HTMLElement });
