// Things to tell a person, at the edge of the screen: read out, gone by themselves, and never in the way of typing.
import { byId, make, makeButton } from './dom';

export type Tell = (text: string) => void;

const MOST = 4;
/** How long one stays, in milliseconds. It waits for whoever points at it. */
const STAYS = 20_000;

export function notices(): Tell {
  const list = byId('notices', HTMLElement);
  return (text) => {
    const notice = make('div', 'notice');
    notice.append(make('p', '', text), makeButton('×', 'Dismiss', () => notice.remove()));
    list.append(notice);
    while (list.childElementCount > MOST) list.firstElementChild?.remove();
    const leave = () => {
      if (notice.matches(':hover, :focus-within')) setTimeout(leave, STAYS);
      else notice.remove();
    };
    setTimeout(leave, STAYS);
  };
}
